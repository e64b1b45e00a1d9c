package vmmtest

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// testOneMoment saves a guest that sweeps over most of its memory as fast as
// it can, also one that was restored: whatever of it was copied while it ran
// must be as it was when it stood still.
func (h Harness) testOneMoment(t *testing.T) {
	parent := h.boot(t)
	if got := parent.ask(t, "sweep %d", h.Config.MemoryMiB/2); got != "ok" {
		t.Fatal(got)
	}
	for range 3 {
		r := parent.saveIntoMemory(t)
		parent.resume(t)
		child := h.restore(t, r)
		wantSwept(t, child)
		wantSwept(t, parent)
		parent.kill()
		parent = child
	}
}

func wantSwept(t *testing.T, g *guest) {
	t.Helper()
	got := g.ask(t, "swept")
	if !strings.HasPrefix(got, "ok ") {
		t.Fatalf("the guest found: %s", got)
	}
	t.Logf("the guest is in round %s", got[3:])
}

// testCancelledSave ends a Save's context when it begins, when the guest is
// about to stand still, and when it does.
func (h Harness) testCancelledSave(t *testing.T) {
	g := h.boot(t)
	g.ask(t, "fill %d 1", h.Config.MemoryMiB/2)
	for n, when := range []string{"begins", "pauses", "is frozen"} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		to := savedIn(dir)
		if n == 0 {
			cancel()
		}
		if n == 1 {
			to.Pausing = cancel
		}
		err := g.Save(ctx, to, func() error { cancel(); return ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a save whose context ends when it %s: %v", when, err)
		}
		wantFiles(t, dir)
		wantCount(t, g, n+1)
	}
}
