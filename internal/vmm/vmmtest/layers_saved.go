package vmmtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/layers"
	"banger/internal/vmm"
)

// testFrozenInSave saves a machine, freezes its disk while it stands still, and
// restores others whose disks have the frozen files by hard links.
func (h Harness) testFrozenInSave(t *testing.T) {
	g := h.bootOf(t, h.prepareLayered(t))
	r := g.saveFrozen(t)
	g.resume(t)
	t.Run("comes back three times, and they part", func(t *testing.T) { h.testFamily(t, g, r) })
	t.Run("comes back larger", func(t *testing.T) { h.testGrownRest(t, r) })
	t.Run("comes back five generations on", func(t *testing.T) { h.testFrozenGenerations(t, r) })
	t.Run("comes back on its own layers and on copies", func(t *testing.T) { h.testOwnLayers(t, r) })
}

// saveFrozen saves a machine whose disk goes on in a new layer.
func (g *guest) saveFrozen(t *testing.T) rest {
	t.Helper()
	g.do(t, "disk write %s 8192 parent", diskSerial)
	return g.saveWith(t, func(to string) error {
		name, err := layers.New(g.cfg.Dir)
		if err == nil {
			err = g.FreezeDisk(t.Context(), diskSerial, name)
		}
		if err == nil {
			err = linkAllBut(name, g.cfg.Dir, to)
		}
		return err
	})
}

// saveWith saves a machine and its disk, which take puts into a directory.
func (g *guest) saveWith(t *testing.T, take func(to string) error) rest {
	t.Helper()
	r := rest{dir: t.TempDir(), cfg: g.cfg}
	err := g.Save(t.Context(), savedIn(r.dir), func() error { return take(r.dir) })
	if err != nil {
		t.Fatal(err)
	}
	if r.memory, err = vmm.SealedCopy(savedIn(r.dir).Memory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.memory.Close() })
	return r
}

// linkAllBut gives the files of a disk another name, but for its top.
func linkAllBut(top, from, to string) error {
	base, overlays, err := layers.Of(from)
	for _, name := range append([]string{base}, overlays...) {
		if err == nil && name != top {
			err = os.Link(filepath.Join(from, name), filepath.Join(to, name))
		}
	}
	return err
}

// restoreLayered restores a machine whose disk is a layer of its own above the
// files that were frozen.
func (h Harness) restoreLayered(t *testing.T, r rest, grow int64) *guest {
	t.Helper()
	dir := t.TempDir()
	if err := linkAllBut("", r.dir, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := layers.New(dir); err != nil {
		t.Fatal(err)
	}
	if err := layers.Grow(dir, grow); err != nil {
		t.Fatal(err)
	}
	return h.restoreOn(t, r, dir)
}

// restoreOn restores a machine on the disk in dir.
func (h Harness) restoreOn(t *testing.T, r rest, dir string) *guest {
	t.Helper()
	cfg := h.stacked(t, r.cfg, dir)
	cfg.Kernel, cfg.Initrd, cfg.Cmdline = "", "", ""
	return h.start(t, cfg, func(ctx context.Context, out vmm.IO) (vmm.Machine, error) {
		return h.Driver.Restore(ctx, cfg, r.source(), out)
	})
}

func (h Harness) testFamily(t *testing.T, parent *guest, r rest) {
	frozen := frozenFiles(t, parent.cfg.Dir)
	family := []*guest{parent, h.restoreLayered(t, r, 0), h.restoreLayered(t, r, 0), h.restoreLayered(t, r, 0)}
	for n, g := range family {
		g.do(t, "disk write %s %d child%d", diskSerial, 8192+6*(n+1), n)
		g.do(t, "disk fill %s %d %d", diskSerial, n*cluster+cluster, cluster)
	}
	for n, g := range family {
		want := []byte("parent" + string(make([]byte, 6*len(family))))
		copy(want[6*(n+1):], "child"+string(rune('0'+n)))
		if got := g.ask(t, "disk read %s 8192 %d", diskSerial, len(want)); got != string(want) {
			t.Errorf("the disk of %d has %q, want %q", n, got, want)
		}
		g.wantFrozen(t, frozen)
		g.kill()
	}
}

// testGrownRest enlarges a disk before its machine comes back.
func (h Harness) testGrownRest(t *testing.T, r rest) {
	const size = layeredSize + 4*cluster
	g := h.restoreLayered(t, r, size)
	if err := g.GrowDisk(t.Context(), diskSerial, size); err != nil {
		t.Fatal(err)
	}
	g.wantSize(t, size)
	g.do(t, "disk write %s %d end", diskSerial, size-3)
	g.kill()
}

// testFrozenGenerations restores and saves again, and then has all layers made
// one file.
func (h Harness) testFrozenGenerations(t *testing.T, r rest) {
	g := h.restoreLayered(t, r, 0)
	for n := range 5 {
		g.do(t, "disk fill %s %d %d", diskSerial, n*cluster+512, 3*cluster)
		g.do(t, "disk discard %s %d %d", diskSerial, 2*n*cluster, cluster)
		next := g.saveFrozen(t)
		g.resume(t)
		want := g.sum(t)
		g.kill()
		g = h.restoreLayered(t, next, 0)
		if got := g.sum(t); got != want {
			t.Errorf("generation %d: the disk has the sum %s, want %s", n+1, got, want)
		}
	}
	want := g.sum(t)
	g.kill()
	wantFlat(t, g.cfg.Dir, want)
}

// testOwnLayers saves a machine in the middle of writing and kills it. Its disk
// must be all there, and so must be the copy that was taken meanwhile.
func (h Harness) testOwnLayers(t *testing.T, r rest) {
	g := h.restoreLayered(t, r, 0)
	g.do(t, "disk discard %s 0 %d", diskSerial, layeredSize)
	g.do(t, "churn 1 %s", diskSerial)
	for range 3 {
		saved := g.saveWith(t, func(to string) error {
			return layers.Take(t.Context(), g.cfg.Dir, to, true, func(name string) error {
				return g.FreezeDisk(t.Context(), diskSerial, name)
			})
		})
		g.kill()
		for _, dir := range []string{saved.dir, g.cfg.Dir} {
			g = h.restoreOn(t, saved, dir)
			if got := g.ask(t, "check"); !strings.HasPrefix(got, "ok") {
				t.Fatal(got)
			}
			if dir == saved.dir {
				g.kill()
			}
		}
	}
}
