package vmmtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/layers"
	"banger/internal/vmm"
)

// cluster is the unit in which layers hold data.
const cluster = 64 << 10

// layeredSize is the size of a disk in layers: not a whole number of clusters.
const layeredSize = 3<<20 + 4096

// prepareLayered is prepare with a writable disk that may get layers.
func (h Harness) prepareLayered(t *testing.T) vmm.Config {
	t.Helper()
	cfg := h.prepare(t)
	if err := os.Rename(cfg.At("disk.img"), cfg.At("disk.ext4")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(cfg.At("disk.ext4"), layeredSize); err != nil {
		t.Fatal(err)
	}
	return h.stacked(t, cfg, cfg.Dir)
}

// stacked describes a machine whose disk is the one in dir, as it is now.
func (h Harness) stacked(t *testing.T, cfg vmm.Config, dir string) vmm.Config {
	t.Helper()
	base, overlays, err := layers.Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = dir
	cfg.Disks = append([]vmm.Disk{{Serial: diskSerial, Path: base, Layers: overlays}}, cfg.Disks[1:]...)
	return cfg
}

// bootOf boots a machine of this description and waits for its guest.
func (h Harness) bootOf(t *testing.T, cfg vmm.Config) *guest {
	t.Helper()
	g := h.start(t, cfg, func(ctx context.Context, out vmm.IO) (vmm.Machine, error) {
		return h.Driver.Boot(ctx, cfg, out)
	})
	g.SetDeadline(t, bootLimit)
	if line := g.read(t); line != "hello" {
		t.Fatalf("the guest's first line is %q", line)
	}
	return g
}

// freeze puts a new layer on top of the disk.
func (g *guest) freeze(t *testing.T) {
	t.Helper()
	name, err := layers.New(g.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.FreezeDisk(t.Context(), diskSerial, name); err != nil {
		t.Fatal(err)
	}
}

// do asks for something that is answered with ok.
func (g *guest) do(t *testing.T, format string, args ...any) {
	t.Helper()
	if got := g.ask(t, format, args...); got != "ok" {
		t.Fatalf("%s: %s", fmt.Sprintf(format, args...), got)
	}
}

// sum is the digest of the disk as the guest reads it.
func (g *guest) sum(t *testing.T) string {
	t.Helper()
	got := g.ask(t, "disk sum %s", diskSerial)
	if len(got) != 2*sha256.Size {
		t.Fatal(got)
	}
	return got
}

// frozenFiles are the digests of what nobody may write in a directory.
func frozenFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	base, overlays, err := layers.Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := append([]string{base}, overlays...)
	sums := map[string]string{}
	for _, name := range files[:len(files)-1] {
		sums[name] = fileSum(t, filepath.Join(dir, name))
	}
	return sums
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// testLayers freezes the disk of one machine again and again.
func (h Harness) testLayers(t *testing.T) {
	g := h.bootOf(t, h.prepareLayered(t))
	t.Run("is frozen while its guest runs", g.testFreeze)
	t.Run("is frozen while its guest is paused", g.testFreezePaused)
	t.Run("is not frozen where that cannot be", g.testFailedFreeze)
	t.Run("grows", g.testGrowLayered)
	t.Run("stays whole under load", g.testFreezeUnderLoad)
	t.Run("boots, and becomes one file again", func(t *testing.T) { h.testFiveLayers(t, g) })
}

func (g *guest) testFreeze(t *testing.T) {
	g.do(t, "disk write %s 4096 before", diskSerial)
	g.do(t, "disk fill %s %d %d", diskSerial, 10*cluster, 3*cluster)
	before := g.sum(t)
	g.freeze(t)
	if got := g.sum(t); got != before {
		t.Errorf("the guest's disk had the sum %s and has %s", before, got)
	}
	frozen := frozenFiles(t, g.cfg.Dir)
	if len(frozen) != 1 || frozen["disk.ext4"] != before {
		t.Errorf("frozen are %v, want what the guest saw, %s", frozen, before)
	}
	g.do(t, "disk write %s 4100 after", diskSerial)
	g.do(t, "disk discard %s %d %d", diskSerial, 11*cluster, cluster)
	if got := g.ask(t, "disk read %s 4096 9", diskSerial); got != "befoafter" {
		t.Errorf("the disk has %q", got)
	}
	if got := g.ask(t, "disk read %s %d 1", diskSerial, 11*cluster); got != "\x00" {
		t.Errorf("what was discarded reads %q", got)
	}
	g.wantFrozen(t, frozen)
}

// wantFrozen says that the files are what they were, and that the VMM, which
// runs, could not even write to them.
func (g *guest) wantFrozen(t *testing.T, files map[string]string) {
	t.Helper()
	for name, want := range files {
		if got := fileSum(t, g.cfg.At(name)); got != want {
			t.Errorf("the guest changed %s", name)
		}
		if n := g.writable(t, g.cfg.At(name)); n > 0 {
			t.Errorf("the VMM has %d descriptors to write %s with", n, name)
		}
	}
}

// writable counts the VMM's descriptors that could write a file.
func (g *guest) writable(t *testing.T, path string) (n int) {
	t.Helper()
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", g.PID()))
	if err != nil || len(infos) == 0 {
		t.Fatalf("cannot see the VMM's descriptors: %v", err)
	}
	for _, info := range infos {
		file, err1 := os.Stat(fmt.Sprintf("/proc/%d/fd/%s", g.PID(), filepath.Base(info)))
		text, err2 := os.ReadFile(info)
		if errors.Join(err1, err2) != nil || !os.SameFile(file, want) {
			continue // closed meanwhile, or another
		}
		_, after, _ := strings.Cut(string(text), "flags:")
		flags, err := strconv.ParseInt(strings.Fields(after)[0], 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			n++
		}
	}
	return n
}

func (g *guest) testFreezePaused(t *testing.T) {
	if err := g.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.freeze(t)
	frozen := frozenFiles(t, g.cfg.Dir)
	g.resume(t)
	g.do(t, "disk fill %s %d %d", diskSerial, 9*cluster, 2*cluster)
	g.wantFrozen(t, frozen)
}

func (g *guest) testFailedFreeze(t *testing.T) {
	before := g.sum(t)
	small := filepath.Join(t.TempDir(), "small.qcow2")
	if err := layers.CreateOverlay(small, layeredSize-512); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name, serial, overlay string
		ctx                   context.Context
		code                  banger.Code
	}{
		{"no such disk", "nosuch", small, t.Context(), banger.NotFound},
		{"a read-only disk", rootSerial, small, t.Context(), banger.BadRequest},
		{"no such layer", diskSerial, "gone.qcow2", t.Context(), banger.NotFound},
		{"a layer that is none", diskSerial, "root.img", t.Context(), banger.BadRequest},
		{"a layer that is too small", diskSerial, small, t.Context(), banger.BadRequest},
		{"a context that is over", diskSerial, small, cancelled, banger.Cancelled},
	} {
		if err := g.FreezeDisk(c.ctx, c.serial, c.overlay); banger.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	if n := g.writable(t, small); n > 0 {
		t.Errorf("the VMM still has %d descriptors of the layer it refused", n)
	}
	if got := g.sum(t); got != before {
		t.Error("the disk has changed")
	}
	g.freeze(t) // as well as ever
}

func (g *guest) testGrowLayered(t *testing.T) {
	const size = layeredSize + 2*cluster
	frozen := frozenFiles(t, g.cfg.Dir)
	if err := g.GrowDisk(t.Context(), diskSerial, size); err != nil {
		t.Fatal(err)
	}
	g.wantSize(t, size)
	g.do(t, "disk write %s %d end", diskSerial, size-3)
	if err := g.GrowDisk(t.Context(), diskSerial, layeredSize); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("shrinking: %v", err)
	}
	if got, err := layers.Size(g.cfg.Dir); got != size || err != nil {
		t.Errorf("the disk in the directory has %d bytes, want %d (%v)", got, size, err)
	}
	g.wantFrozen(t, frozen)
}

// wantSize waits until the guest has heard of it, by an interrupt.
func (g *guest) wantSize(t *testing.T, size int64) {
	t.Helper()
	want := strconv.FormatInt(size, 10)
	for limit := time.Now().Add(answerLimit); ; {
		got := g.ask(t, "disk size %s", diskSerial)
		if got == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the guest sees %s bytes, want %s", got, want)
		}
	}
}

// testFreezeUnderLoad freezes a disk that is written without pause by a guest
// that looks at what it reads.
func (g *guest) testFreezeUnderLoad(t *testing.T) {
	g.do(t, "disk discard %s 0 %d", diskSerial, layeredSize+2*cluster)
	g.do(t, "churn 1 %s", diskSerial)
	for n := range 3 {
		g.freeze(t)
		frozen := frozenFiles(t, g.cfg.Dir)
		if got := g.ask(t, "check"); !strings.HasPrefix(got, "ok") {
			t.Fatalf("after freeze %d: %s", n, got)
		}
		g.wantFrozen(t, frozen)
	}
	g.do(t, "calm")
}

// testFiveLayers has a guest write and discard in several layers, boots another
// from them while it runs, boots that again, and makes one file of all, which
// must be the same every time.
func (h Harness) testFiveLayers(t *testing.T, g *guest) {
	for n := range 5 {
		g.freeze(t)
		g.do(t, "disk fill %s %d %d", diskSerial, n*cluster-n*512, 7*cluster)
		g.do(t, "disk discard %s %d %d", diskSerial, (n+2)*cluster, 2*cluster)
		g.do(t, "disk write %s %d generation-%d", diskSerial, (20+n)*cluster, n)
	}
	want := g.sum(t)
	dir := t.TempDir()
	g.freeze(t)
	frozen := frozenFiles(t, g.cfg.Dir)
	top := fmt.Sprintf("disk.%d.qcow2", len(frozen))
	if err := linkAllBut(top, g.cfg.Dir, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := layers.New(dir); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		again := h.bootOf(t, h.stacked(t, g.cfg, dir))
		if got := again.sum(t); got != want {
			t.Errorf("booted from %d layers the disk has the sum %s, want %s", len(frozen), got, want)
		}
		again.do(t, "disk fill %s %d %d", diskSerial, (30+n)*cluster, cluster)
		want = again.sum(t)
		again.wantFrozen(t, frozen)
		again.kill() // all that was written was synced
	}
	g.do(t, "disk fill %s 0 %d", diskSerial, cluster)
	g.wantFrozen(t, frozen)
	wantFlat(t, dir, want)
}

// wantFlat flattens a copy that shares its files, and then the disk itself.
func wantFlat(t *testing.T, dir, want string) {
	t.Helper()
	copied := t.TempDir()
	base, overlays, err := layers.Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{base}, overlays...) {
		if err := os.Link(filepath.Join(dir, name), filepath.Join(copied, name)); err != nil {
			t.Fatal(err)
		}
	}
	shared := frozenFiles(t, dir)
	for _, dir := range []string{copied, dir} {
		if got := frozenFiles(t, dir); dir != copied && !maps.Equal(got, shared) {
			t.Errorf("a base that another has was changed: %v, %v", got, shared)
		}
		if err := layers.Flatten(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if _, left, err := layers.Of(dir); len(left) > 0 || err != nil {
			t.Errorf("left are %q, %v", left, err)
		}
		if got := fileSum(t, filepath.Join(dir, base)); got != want {
			t.Errorf("made one file the disk has the sum %s, want %s", got, want)
		}
	}
}

func (h Harness) testNoLayers(t *testing.T) {
	g := h.launch(t)
	if err := g.FreezeDisk(t.Context(), diskSerial, "disk.img"); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("FreezeDisk: %v", err)
	}
}
