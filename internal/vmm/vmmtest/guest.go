package vmmtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/vmm"
)

// Sizes and content of the disks every machine gets.
const (
	rootSerial, diskSerial = "root", "disk"
	rootText               = "the-image"
	diskSize               = 1 << 20
)

// guest is a machine whose test guest answered.
type guest struct {
	vmm.Machine
	cfg     vmm.Config
	lines   *bufio.Reader
	console *recorder
	log     *recorder
	halts   chan struct{} // one for each time the VMM was out of room
}

// prepare gives the harness's machine a directory and disks of its own.
func (h Harness) prepare(t *testing.T) vmm.Config {
	t.Helper()
	cfg := h.Config
	cfg.Dir = t.TempDir()
	root := make([]byte, diskSize)
	copy(root, rootText)
	for name, content := range map[string][]byte{"root.img": root, "disk.img": make([]byte, diskSize)} {
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Disks = []vmm.Disk{
		{Serial: diskSerial, Path: "disk.img"}, // relative: from Dir
		{Serial: rootSerial, Path: filepath.Join(cfg.Dir, "root.img"), ReadOnly: true},
	}
	cfg.NIC = &vmm.NIC{MAC: guestMAC.String(), MTU: guestMTU}
	return cfg
}

// boot starts a machine, waits for its guest's greeting, and ends it with the
// test. The context of the start is over when it returns, which must not
// matter to the machine.
func (h Harness) boot(t *testing.T) *guest {
	t.Helper()
	g := h.launch(t)
	g.SetDeadline(t, bootLimit)
	if line := g.read(t); line != "hello" {
		t.Fatalf("the guest's first line is %q", line)
	}
	return g
}

// launch is boot without waiting for the guest.
func (h Harness) launch(t *testing.T) *guest {
	t.Helper()
	cfg := h.prepare(t)
	return h.start(t, cfg, func(ctx context.Context, out vmm.IO) (vmm.Machine, error) {
		return h.Driver.Boot(ctx, cfg, out)
	})
}

func (h Harness) start(t *testing.T, cfg vmm.Config, begin func(context.Context, vmm.IO) (vmm.Machine, error)) *guest {
	t.Helper()
	g := &guest{cfg: cfg, console: newRecorder(), log: newRecorder(), halts: make(chan struct{}, 100)}
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	var err error
	ups := 0
	g.Machine, err = begin(ctx, vmm.IO{
		Console: g.console, Log: g.log, Up: func() { ups++ }, Halted: func() { g.halts <- struct{}{} },
	})
	if err != nil {
		t.Fatalf("%v; log:\n%s", err, g.log.tail())
	}
	if ups != 1 {
		t.Errorf("the VMM came up %d times", ups)
	}
	t.Cleanup(func() {
		g.kill()
		g.Agent().Close()
		g.Cable().Close()
		if t.Failed() {
			t.Logf("console:\n%s\nlog:\n%s", g.console.tail(), g.log.tail())
		}
	})
	g.lines = bufio.NewReader(g.Agent())
	return g
}

// kill ends the machine and waits for its end.
func (g *guest) kill() {
	g.Signal(os.Kill)
	<-g.Done()
}

func (g *guest) SetDeadline(t *testing.T, limit time.Duration) {
	t.Helper()
	if err := g.Agent().SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) read(t *testing.T) string {
	t.Helper()
	line, err := g.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("no answer from the guest: %v (after %d bytes, %.40q)", err, len(line), line)
	}
	return strings.TrimSuffix(line, "\n")
}

func (g *guest) send(t *testing.T, format string, args ...any) {
	t.Helper()
	g.SetDeadline(t, answerLimit)
	if _, err := fmt.Fprintf(g.Agent(), format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

// ask sends one request and gives its answer.
func (g *guest) ask(t *testing.T, format string, args ...any) string {
	t.Helper()
	g.send(t, format, args...)
	return g.read(t)
}

// ends waits for the machine to end.
func (g *guest) ends(t *testing.T, limit time.Duration) vmm.Exit {
	t.Helper()
	select {
	case <-g.Done():
	case <-time.After(limit):
		t.Fatalf("the machine has not ended after %v", limit)
	}
	return g.Exit()
}

// recorder keeps what was written to it and lets one wait for more.
type recorder struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced at each write
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{})} }

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	return r.text.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// tail is the end of it, for a failure's report.
func (r *recorder) tail() string {
	text := r.String()
	return text[max(0, len(text)-2000):]
}

// wait waits until what was written satisfies enough.
func (r *recorder) wait(t *testing.T, what string, enough func(string) bool) {
	t.Helper()
	limit := time.After(answerLimit)
	for {
		r.mu.Lock()
		text, changed := r.text.String(), r.changed
		r.mu.Unlock()
		if enough(text) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("never saw %s; %d bytes end in %q", what, len(text), r.tail())
		}
	}
}
