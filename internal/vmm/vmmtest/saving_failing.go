package vmmtest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
)

// testFailedSave has the caller's part fail, while the machine runs and while
// it is paused, and tries files that are there.
func (g *guest) testFailedSave(t *testing.T) {
	for _, paused := range []bool{false, true} {
		if paused {
			if err := g.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		dir := t.TempDir()
		full := errors.New("the disk is full")
		if err := g.Save(t.Context(), savedIn(dir), func() error { return full }); !errors.Is(err, full) {
			t.Errorf("Save: %v", err)
		}
		wantFiles(t, dir)
		if !paused {
			wantCount(t, g, 3)
		}
	}
	dir := t.TempDir()
	state := savedIn(dir).State
	if err := os.WriteFile(state, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Save(t.Context(), savedIn(dir), nil); banger.CodeOf(err) != banger.AlreadyExists {
		t.Errorf("a file that is there: %v", err)
	}
	wantFiles(t, dir, "state")
	g.send(t, "count")
	g.SetDeadline(t, patience*300*time.Millisecond)
	if line, err := g.lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a machine that was paused said %q (%v)", line, err)
	}
	g.resume(t)
	g.SetDeadline(t, answerLimit)
	if got := g.read(t); got != "4" {
		t.Errorf("the guest's count is %s, want 4", got)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	files, err := os.ReadDir(dir)
	for _, f := range files {
		got = append(got, f.Name())
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, want %q (%v)", got, want, err)
	}
}

func (g *guest) testKilledInSave(t *testing.T) {
	dir := t.TempDir()
	err := g.Save(t.Context(), savedIn(dir), func() error {
		g.kill()
		return errors.New("it was killed")
	})
	if err == nil {
		t.Error("it was saved")
	}
	wantFiles(t, dir)
	if err := g.Save(t.Context(), savedIn(dir), nil); banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("Save of an ended machine: %v", err)
	}
	wantFiles(t, dir)
}

// damage makes something of a saved machine that must be refused.
type damage struct {
	name string
	do   func(t *testing.T, cfg *vmm.Config, from *vmm.Source)
	code banger.Code
	says string
}

func damages() []damage {
	type config = func(*vmm.Config)
	type change = func([]byte) []byte
	shape := func(f config) func(*testing.T, *vmm.Config, *vmm.Source) {
		return func(_ *testing.T, cfg *vmm.Config, _ *vmm.Source) { f(cfg) }
	}
	state := func(f change) func(*testing.T, *vmm.Config, *vmm.Source) {
		return func(t *testing.T, _ *vmm.Config, from *vmm.Source) {
			from.State = changed(t, from.State, f)
		}
	}
	flip := func(at int) change { return func(b []byte) []byte { b[at] ^= 1; return b } }
	memory := func(size int64) func(*testing.T, *vmm.Config, *vmm.Source) {
		return func(t *testing.T, cfg *vmm.Config, from *vmm.Source) {
			from.Memory = emptyMemory(t, size+cfg.MemoryMiB<<20)
		}
	}
	return []damage{
		{"another number of vCPUs", shape(func(c *vmm.Config) { c.VCPU++ }), banger.BadRequest, "vCPU"},
		{"another size of memory", shape(func(c *vmm.Config) { c.MemoryMiB *= 2 }), banger.BadRequest, "MiB"},
		{"a disk less", shape(func(c *vmm.Config) { c.Disks = c.Disks[:1] }), banger.BadRequest, "disk"},
		{"disks in another order", shape(func(c *vmm.Config) { c.Disks = []vmm.Disk{c.Disks[1], c.Disks[0]} }), banger.BadRequest, "disk"},
		{"a disk with another serial", shape(func(c *vmm.Config) { c.Disks = slices.Clone(c.Disks); c.Disks[0].Serial = "other" }), banger.BadRequest, "other"},
		{"a disk with another mode", shape(func(c *vmm.Config) { c.Disks = slices.Clone(c.Disks); c.Disks[1].ReadOnly = false }), banger.BadRequest, "read-only"},
		{"without its network card", shape(func(c *vmm.Config) { c.NIC = nil }), banger.BadRequest, "network card"},
		{"a network card with another address", shape(func(c *vmm.Config) { c.NIC = &vmm.NIC{MAC: hostMAC.String(), MTU: guestMTU} }), banger.BadRequest, "network card"},
		{"disk missing", shape(func(c *vmm.Config) { c.Disks = slices.Clone(c.Disks); c.Disks[0].Path = "gone" }), banger.NotFound, "gone"},
		{"state missing", func(_ *testing.T, _ *vmm.Config, from *vmm.Source) { from.State += "-gone" }, banger.NotFound, "state-gone"},
		{"state empty", state(func([]byte) []byte { return nil }), banger.BadRequest, "state"},
		{"state truncated", state(func(b []byte) []byte { return b[:len(b)-1] }), banger.BadRequest, "state"},
		{"state flipped in its header", state(flip(3)), banger.BadRequest, "state"},
		{"state flipped in its description", state(flip(120)), banger.BadRequest, "state"},
		{"state flipped at its end", func(t *testing.T, c *vmm.Config, from *vmm.Source) {
			state(func(b []byte) []byte { return flip(len(b) - 1)(b) })(t, c, from)
		}, banger.BadRequest, "state"},
		{"state that the VMM cannot take", func(t *testing.T, _ *vmm.Config, from *vmm.Source) {
			s, err := vmm.ReadState(from.State)
			if err != nil {
				t.Fatal(err)
			}
			s.Devices = s.Devices[:len(s.Devices)/2]
			text, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			state(func([]byte) []byte { return text })(t, nil, from)
		}, banger.BadRequest, "state"},
		{"memory truncated", memory(-vmm.PageSize), banger.BadRequest, "memory"},
		{"memory too long", memory(vmm.PageSize), banger.BadRequest, "memory"},
	}
}

func changed(t *testing.T, path string, f func([]byte) []byte) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, f(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func emptyMemory(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func (h Harness) testRefused(t *testing.T, r rest) {
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			cfg, from := r.config(t), r.source()
			d.do(t, &cfg, &from)
			before := worldOf(t, cfg.Dir)
			m, err := h.Driver.Restore(t.Context(), cfg, from, vmm.IO{})
			if err == nil {
				m.Signal(os.Kill)
				<-m.Done()
				t.Fatal("it came back")
			}
			if banger.CodeOf(err) != d.code || !strings.Contains(err.Error(), d.says) || !strings.HasPrefix(err.Error(), "cannot ") {
				t.Errorf("error %q of code %s, want %s and the word %q", err, banger.CodeOf(err), d.code, d.says)
			}
			before.wantBack(t, cfg.Dir)
		})
	}
}

// churnMiB is how much memory a busy guest writes to.
const churnMiB = 32

// testSavedUnderLoad saves a guest that writes to memory and disk as fast as
// it can, which then compares the two with what it remembers to have written.
func (h Harness) testSavedUnderLoad(t *testing.T) {
	parent := h.boot(t)
	if got := parent.ask(t, "churn %d %s", churnMiB, diskSerial); got != "ok" {
		t.Fatal(got)
	}
	for range 3 {
		r := parent.saveIntoMemory(t)
		parent.resume(t)
		child := h.restore(t, r)
		wantOK(t, child)
		wantOK(t, parent)
		parent.kill()
		parent = child // which has not ceased to write
	}
	if got := parent.ask(t, "calm"); got != "ok" {
		t.Error(got)
	}
	wantOK(t, parent)
}

func wantOK(t *testing.T, g *guest) {
	t.Helper()
	got := g.ask(t, "check")
	if !strings.HasPrefix(got, "ok ") {
		t.Fatalf("the guest found: %s", got)
	}
	t.Logf("the guest found %s writes in order", got[3:])
}
