package vmmtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
)

func (g *guest) testAgent(t *testing.T) {
	for _, text := range []string{"one", strings.Repeat("long", 12<<10), "last"} {
		if got := g.ask(t, "echo %s", text); got != text {
			t.Fatalf("sent %d bytes, %d came back", len(text), len(got))
		}
	}
}

func (g *guest) testConsole(t *testing.T) {
	g.ask(t, "console a-word-for-the-console")
	g.console.wait(t, "the word", func(text string) bool {
		return strings.Contains(text, "a-word-for-the-console")
	})
}

// testFlood has the guest answer while its console is as busy as it can be. Each
// character is an exit of the guest's: under KVM in an emulated machine on a busy host
// that takes milliseconds, and so a small flood as long as a large one elsewhere.
func (g *guest) testFlood(t *testing.T) {
	size := 128 << 10
	if patience > 1 {
		size = 4 << 10
	}
	before := strings.Count(g.console.String(), "x")
	if got := g.ask(t, "flood %d", size); got != "ok" {
		t.Fatal(got)
	}
	flooded := false
	for n := range 20 {
		want := fmt.Sprintf("still-%d", n)
		got := g.ask(t, "echo %s", want)
		if got == "flooded" {
			flooded, got = true, g.read(t)
		}
		if got != want {
			t.Fatalf("answer %.40q, want %q", got, want)
		}
	}
	if !flooded && g.read(t) != "flooded" {
		t.Fatal("the flood was not confirmed")
	}
	g.console.wait(t, "the whole flood", func(text string) bool {
		return strings.Count(text, "x")-before >= size/64*63
	})
}

// testPause looks for silence on a stream that never rests by itself.
func (g *guest) testPause(t *testing.T) {
	g.send(t, "tick")
	g.read(t)
	for range 2 { // the second one has nothing to do
		if err := g.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// What was under way arrives, then nothing for thirty ticks' time.
	for n := 0; ; n++ {
		g.SetDeadline(t, patience*300*time.Millisecond)
		_, err := g.lines.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || n > 1000 {
			t.Fatalf("a paused guest went on (%d lines, %v)", n, err)
		}
	}
	for range 2 {
		if err := g.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g.SetDeadline(t, answerLimit)
	if line := g.read(t); !strings.HasPrefix(line, "tick ") {
		t.Fatalf("a resumed guest said %q", line)
	}
	for g.send(t, "still"); g.read(t) != "ok"; {
	}
}

func (g *guest) testDisks(t *testing.T) {
	if got := g.ask(t, "disk read %s 0 %d", rootSerial, len(rootText)); got != rootText {
		t.Errorf("disk %s begins with %q", rootSerial, got)
	}
	if got := g.ask(t, "disk write %s 4096 written", diskSerial); got != "ok" {
		t.Fatal(got)
	}
	file, err := os.ReadFile(filepath.Join(g.cfg.Dir, "disk.img"))
	if err != nil || string(file[4096:4096+7]) != "written" {
		t.Errorf("what the guest synced is not in the file (%v)", err)
	}
}

func (g *guest) testReadOnly(t *testing.T) {
	if got := g.ask(t, "disk write %s 0 scribble", rootSerial); !strings.HasPrefix(got, "error") {
		t.Errorf("writing answered %q", got)
	}
	file, err := os.ReadFile(filepath.Join(g.cfg.Dir, "root.img"))
	if err != nil || !strings.HasPrefix(string(file), rootText) {
		t.Errorf("the file changed (%v)", err)
	}
}

func (g *guest) testGrow(t *testing.T) {
	const size = 2 * diskSize
	if err := os.Truncate(filepath.Join(g.cfg.Dir, "disk.img"), size); err != nil {
		t.Fatal(err)
	}
	if err := g.GrowDisk(t.Context(), diskSerial, size); err != nil {
		t.Fatal(err)
	}
	// The guest hears of it by an interrupt, which may come a moment later.
	want := strconv.Itoa(size)
	for limit := time.Now().Add(answerLimit); ; {
		got := g.ask(t, "disk size %s", diskSerial)
		if got == want {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the guest sees %s bytes, want %s", got, want)
		}
	}
	if err := g.GrowDisk(t.Context(), diskSerial, diskSize); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("shrinking: %v", err)
	}
	if err := g.GrowDisk(t.Context(), "nosuch", size); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("growing a disk that is not there: %v", err)
	}
}

func (g *guest) testKill(t *testing.T) {
	if err := g.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := g.ends(t, answerLimit); exit.Reason != vmm.Killed || exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v", exit)
	}
}

func (g *guest) testEnded(t *testing.T) {
	ctx := t.Context()
	for what, err := range map[string]error{
		"Pause":      g.Pause(ctx),
		"Resume":     g.Resume(ctx),
		"GrowDisk":   g.GrowDisk(ctx, diskSerial, 4*diskSize),
		"FreezeDisk": g.FreezeDisk(ctx, diskSerial, "disk.img"),
		"Signal":     g.Signal(syscall.SIGKILL),
	} {
		if banger.CodeOf(err) != banger.NotRunning {
			t.Errorf("%s: err = %v, want not_running", what, err)
		}
	}
	g.SetDeadline(t, answerLimit)
	if _, err := io.Copy(io.Discard, g.lines); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the agent stream ends in %v", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", g.PID())); err == nil {
		t.Error("the process is still there")
	}
}
