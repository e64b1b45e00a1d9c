package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// rest is a machine at rest: its two files and its disk, in a directory.
type rest struct {
	dir    string
	cfg    vmm.Config // of the machine it was
	memory *os.File   // sealed
}

func savedIn(dir string) vmm.Saved {
	return vmm.Saved{Memory: filepath.Join(dir, "memory"), State: filepath.Join(dir, "state")}
}

// save saves a machine, which stands still afterwards.
func (g *guest) save(t *testing.T) rest {
	t.Helper()
	r := rest{dir: t.TempDir(), cfg: g.cfg}
	g.saveTo(t, r, savedIn(r.dir))
	var err error
	if r.memory, err = vmm.SealedCopy(savedIn(r.dir).Memory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.memory.Close() })
	return r
}

// saveIntoMemory is save without a file for the memory.
func (g *guest) saveIntoMemory(t *testing.T) rest {
	t.Helper()
	memory, err := vmm.NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	r := rest{dir: t.TempDir(), cfg: g.cfg, memory: memory}
	g.saveTo(t, r, vmm.Saved{Into: memory, State: savedIn(r.dir).State})
	if err := vmm.Seal(memory); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, r.dir, "disk.img", "state")
	return r
}

func (g *guest) saveTo(t *testing.T, r rest, to vmm.Saved) {
	t.Helper()
	frozen := func() error {
		return copyFile(filepath.Join(r.dir, "disk.img"), g.cfg.At("disk.img"))
	}
	if err := g.Save(t.Context(), to, frozen); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) resume(t *testing.T) {
	t.Helper()
	if err := g.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// source is what a machine is restored from.
func (r rest) source() vmm.Source {
	return vmm.Source{Memory: r.memory, State: savedIn(r.dir).State}
}

// config describes a machine to restore, which has a directory and a disk of
// its own. Where the kernel was does not matter to it.
func (r rest) config(t *testing.T) vmm.Config {
	t.Helper()
	cfg := r.cfg
	cfg.Dir, cfg.Kernel, cfg.Initrd, cfg.Cmdline = t.TempDir(), "", "", ""
	if err := copyFile(cfg.At("disk.img"), filepath.Join(r.dir, "disk.img")); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (h Harness) restore(t *testing.T, r rest) *guest {
	t.Helper()
	return h.restoreFrom(t, r, r.source())
}

func (h Harness) restoreFrom(t *testing.T, r rest, from vmm.Source) *guest {
	t.Helper()
	cfg := r.config(t)
	return h.start(t, cfg, func(ctx context.Context, out vmm.IO) (vmm.Machine, error) {
		return h.Driver.Restore(ctx, cfg, from, out)
	})
}

func (h Harness) testNoSnapshots(t *testing.T) {
	g := h.launch(t)
	dir := t.TempDir()
	if err := g.Save(t.Context(), savedIn(dir), nil); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("Save: %v", err)
	}
	if _, err := h.Driver.Restore(t.Context(), g.cfg, rest{dir: dir}.source(), vmm.IO{}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("Restore: %v", err)
	}
}

// testSaved tries on one machine, which it saves again and again, what does
// not need a busy guest.
func (h Harness) testSaved(t *testing.T) {
	g := h.boot(t)
	wantCount(t, g, 1)
	g.wantFrames(t, 1500)
	r := g.save(t)
	t.Run("goes on", func(t *testing.T) {
		g.resume(t)
		wantCount(t, g, 2)
	})
	t.Run("comes back twice, and the two part", func(t *testing.T) { h.testTwo(t, r) })
	t.Run("changes no memory but its own", func(t *testing.T) { h.testSealed(t, r) })
	t.Run("has a cable of its own once it is back", func(t *testing.T) { h.testNewCable(t, g, r) })
	t.Run("sees its disk grow once it is back", func(t *testing.T) { h.restore(t, r).testGrow(t) })
	t.Run("is refused where it does not fit", func(t *testing.T) { h.testRefused(t, r) })
	t.Run("comes back five generations on", func(t *testing.T) { h.testGenerations(t, r) })
	t.Run("runs on where the save fails", g.testFailedSave)
	t.Run("takes no harm from what it is sent meanwhile", func(t *testing.T) { h.testSentMeanwhile(t, g) })
	t.Run("takes no harm from what it is sent when it is frozen", func(t *testing.T) { h.testSentWhenFrozen(t, g) })
	t.Run("takes no harm from what is read of it when it is frozen", func(t *testing.T) { h.testReadWhenFrozen(t, g) })
	t.Run("saves nothing if it is killed meanwhile", g.testKilledInSave)
}

func wantCount(t *testing.T, g *guest, want int) {
	t.Helper()
	if got := g.ask(t, "count"); got != strconv.Itoa(want) {
		t.Errorf("the guest's count is %s, want %d", got, want)
	}
}

func (h Harness) testTwo(t *testing.T, r rest) {
	one, two := h.restore(t, r), h.restore(t, r)
	for n := range 3 {
		wantCount(t, one, 2+n)
	}
	if got := one.ask(t, "disk write %s 0 one", diskSerial); got != "ok" {
		t.Error(got)
	}
	wantCount(t, two, 2)
	if got := two.ask(t, "disk read %s 0 3", diskSerial); got != "\x00\x00\x00" {
		t.Errorf("the other's disk begins with %q", got)
	}
	if got := two.ask(t, "disk read %s 0 %d", rootSerial, len(rootText)); got != rootText {
		t.Errorf("disk %s begins with %q", rootSerial, got)
	}
	if err := one.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	wantCount(t, two, 3)
}

// testSealed fills the memory of one machine, as far as its kernel lets it, and
// compares another's, restored later, and the file's checksum; and it tries what a
// VMM could do that was taken over by its guest, with every descriptor it has.
func (h Harness) testSealed(t *testing.T, r rest) {
	before, err := vmm.Checksum(r.memory)
	if err != nil {
		t.Fatal(err)
	}
	g := h.restore(t, r)
	if got := g.ask(t, "fillall"); !strings.HasPrefix(got, "ok ") {
		t.Fatal(got)
	} else {
		t.Logf("it filled %s of %d MiB", got[3:], r.cfg.MemoryMiB)
	}
	if after, err := vmm.Checksum(r.memory); err != nil || after != before {
		t.Errorf("the saved memory was %s and is %s after the guest wrote to all of it (%v)", before, after, err)
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, link := range links {
		if sameFile(link, r.memory) {
			tried++
			attack(t, link)
		}
	}
	if tried == 0 {
		t.Errorf("none of the VMM's %d descriptors is of the memory", len(links))
	}
	attack(t, fmt.Sprintf("/proc/self/fd/%d", r.memory.Fd()))
	if after, err := vmm.Checksum(r.memory); err != nil || after != before {
		t.Errorf("the saved memory was %s and is %s (%v)", before, after, err)
	}
	wantCount(t, h.restore(t, r), 2)
}

func sameFile(path string, f *os.File) bool {
	one, err1 := os.Stat(path)
	two, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// attack tries to change the file behind a descriptor.
func attack(t *testing.T, link string) {
	t.Helper()
	f, err := os.OpenFile(link, os.O_RDWR, 0)
	if err != nil {
		return // as good
	}
	defer f.Close()
	fd := int(f.Fd())
	_, mapped := unix.Mmap(fd, 0, vmm.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	_, written := f.WriteAt([]byte("poison"), 0)
	_, unsealed := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0)
	for what, err := range map[string]error{
		"write": written, "map": mapped, "unseal": unsealed,
		"punch":          unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, vmm.PageSize),
		"punch the rest": unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, vmm.PageSize, 1<<30),
		"shrink":         unix.Ftruncate(fd, 0),
		"grow":           unix.Ftruncate(fd, 1<<40),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: can %s: %v", link, what, err)
		}
	}
}

// testGenerations saves a machine that was restored, five times over, each
// time to files that are the next one's own.
func (h Harness) testGenerations(t *testing.T, r rest) {
	parent := h.restore(t, r)
	sum := parent.ask(t, "fill 16 1")
	for n := range 5 {
		wantCount(t, parent, 2+n)
		if got := parent.ask(t, "disk write %s %d gen%d", diskSerial, 4*n, n); got != "ok" {
			t.Fatal(got)
		}
		next := parent.save(t)
		parent.kill()
		own, err := os.OpenFile(savedIn(next.dir).Memory, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		parent = h.restoreFrom(t, next, vmm.Source{Memory: own, State: savedIn(next.dir).State})
		if got := parent.ask(t, "sum"); got != sum {
			t.Fatalf("generation %d: the guest's memory has the sum %s, want %s", n+1, got, sum)
		}
		sum = parent.ask(t, "fill 16 %d", n+2)
	}
	if got := parent.ask(t, "disk read %s 0 20", diskSerial); got != "gen0gen1gen2gen3gen4" {
		t.Errorf("the disk has %q", got)
	}
}

// testSentMeanwhile saves a machine whose agent is sent lines without end: in
// no other may half of what came with one be in memory, and not in a device.
func (h Harness) testSentMeanwhile(t *testing.T, g *guest) {
	g.SetDeadline(t, bootLimit)
	stop, sent := make(chan struct{}), make(chan error, 1)
	go func() { sent <- sendWithoutEnd(g.Agent(), stop) }()
	answered := make(chan error, 1)
	ended := make(chan struct{})
	go func() { defer close(ended); answered <- g.readUntil("the end") }()
	defer func() {
		if t.Failed() { // or they would take what is the next test's
			g.SetDeadline(t, 0)
			<-ended
		}
	}()
	for range 3 {
		r := g.save(t)
		g.resume(t)
		h.wantSound(t, r)
	}
	close(stop)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatalf("the one that was saved: %v", err)
	}
}

// testSentWhenFrozen sends the first line when all is still, to a guest with
// so much memory in use that most of it is not yet copied then.
func (h Harness) testSentWhenFrozen(t *testing.T, g *guest) {
	g.ask(t, "fill %d 1", h.Config.MemoryMiB/2)
	r, sent := rest{dir: t.TempDir(), cfg: g.cfg}, make(chan error, 1)
	err := g.Save(t.Context(), savedIn(r.dir), func() error {
		go func() {
			_, err := io.WriteString(g.Agent(), "echo first\n")
			sent <- err
		}()
		return copyFile(filepath.Join(r.dir, "disk.img"), g.cfg.At("disk.img"))
	})
	if err != nil {
		t.Fatal(err)
	}
	g.resume(t)
	if err := errors.Join(<-sent, g.readUntil("first")); err != nil {
		t.Fatalf("the one that was saved: %v", err)
	}
	if r.memory, err = vmm.SealedCopy(savedIn(r.dir).Memory); err != nil {
		t.Fatal(err)
	}
	defer r.memory.Close()
	h.wantSound(t, r)
}

// testReadWhenFrozen saves a guest that has said more than anybody read, and begins to
// read when all is still. Most of its memory is in use since the test before.
func (h Harness) testReadWhenFrozen(t *testing.T, g *guest) {
	if err := g.sendUntilFull(); err != nil {
		t.Fatal(err)
	}
	g.SetDeadline(t, bootLimit)
	sent, read := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.WriteString(g.Agent(), "\necho the end\n") // after half a line, perhaps
		sent <- err
	}()
	r := rest{dir: t.TempDir(), cfg: g.cfg}
	err := g.Save(t.Context(), savedIn(r.dir), func() error {
		go func() { read <- g.readUntil("the end") }()
		return copyFile(filepath.Join(r.dir, "disk.img"), g.cfg.At("disk.img"))
	})
	if err != nil {
		t.Fatal(err)
	}
	g.resume(t)
	if err := errors.Join(<-sent, <-read); err != nil {
		t.Fatalf("the one that was saved: %v", err)
	}
	if r.memory, err = vmm.SealedCopy(savedIn(r.dir).Memory); err != nil {
		t.Fatal(err)
	}
	defer r.memory.Close()
	h.wantSound(t, r)
}

// wantSound restores a machine that may have half a line in its agent's stream.
func (h Harness) wantSound(t *testing.T, r rest) {
	t.Helper()
	child := h.restore(t, r)
	child.send(t, "\necho sound")
	if err := child.readUntil("sound"); err != nil {
		t.Fatalf("a child: %v", err)
	}
	child.kill()
}

var longLine = "echo " + strings.Repeat("x", 3000) + "\n"

func sendWithoutEnd(to io.Writer, stop chan struct{}) error {
	for {
		select {
		case <-stop:
			_, err := io.WriteString(to, "echo the end\n")
			return err
		default:
		}
		if _, err := io.WriteString(to, longLine); err != nil {
			return err
		}
	}
}

// sendUntilFull has the guest say more than what lies between it and a reader can hold.
func (g *guest) sendUntilFull() error {
	for range 2000 { // some hold as much as there is
		if err := g.Agent().SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(g.Agent(), longLine); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// readUntil reads lines up to this one.
func (g *guest) readUntil(want string) error {
	for {
		line, err := g.lines.ReadString('\n')
		if err != nil || line == want+"\n" {
			return err
		}
	}
}
