package template

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/artifact"
	"banger/internal/vmm"
)

// plant writes a template as a maker leaves it.
func plant(t *testing.T, c Cache, k Key, used time.Time, size int64) Template {
	t.Helper()
	tm := Template{Key: k, ID: k.ID(), Dir: filepath.Join(c.Dir, k.ID()), Token: make([]byte, 16), Size: size}
	must(t, os.MkdirAll(tm.Dir, 0o700))
	must(t, os.WriteFile(tm.Memory(), []byte("the memory of "+k.Image), 0o600))
	must(t, os.WriteFile(tm.State(), []byte("the state"), 0o600))
	must(t, os.WriteFile(tm.Disk(), []byte("the disk"), 0o600))
	var err error
	tm.Sums.Memory, err = sumOf(tm.Memory())
	must(t, err)
	tm.Sums.Disk, err = sumOf(tm.Disk())
	must(t, err)
	tm.Sums.State, err = artifact.SHA256(t.Context(), tm.State())
	must(t, err)
	text, err := json.Marshal(tm)
	must(t, err)
	must(t, os.WriteFile(tm.record(), text, 0o600))
	must(t, os.Chtimes(tm.Dir, used, used))
	return tm
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachPartOfTheKeyMakesAnotherTemplate(t *testing.T) {
	base := Key{Image: "i", Kernel: "k", Initramfs: "r", Cmdline: "c", Init: "agent", VCPU: 1, MemoryMiB: 512, Driver: "d", Accel: vmm.TCG, CPU: "p"}
	ids := map[string]bool{base.ID(): true}
	for _, change := range []func(*Key){
		func(k *Key) { k.Image = "x" }, func(k *Key) { k.Kernel = "x" }, func(k *Key) { k.Initramfs = "x" },
		func(k *Key) { k.Cmdline = "x" }, func(k *Key) { k.Init = "systemd" }, func(k *Key) { k.VCPU = 2 },
		func(k *Key) { k.MemoryMiB = 1024 }, func(k *Key) { k.Driver = "x" }, func(k *Key) { k.Accel = vmm.KVM },
		func(k *Key) { k.VMM.Path = "x" }, func(k *Key) { k.VMM.Size = 1 }, func(k *Key) { k.VMM.ModTime = time.Unix(1, 0) },
		func(k *Key) { k.CPU = "x" }, func(k *Key) { k.DiskBytes = 1 },
	} {
		k := base
		change(&k)
		if ids[k.ID()] {
			t.Errorf("%+v has the id of another", k)
		}
		ids[k.ID()] = true
	}
}

func TestPoolSharesOneMemoryThatNobodyCanWrite(t *testing.T) {
	p := &Pool{Cache: Cache{t.TempDir()}}
	defer p.Close()
	tm := plant(t, p.Cache, Key{Image: "a"}, time.Now(), 1)
	one, err := p.Open(t.Context(), tm.ID)
	must(t, err)
	two, err := p.Open(t.Context(), tm.ID)
	must(t, err)
	defer two.Close()
	a, err := one.Memory.Stat()
	must(t, err)
	must(t, one.Close())
	b, err := two.Memory.Stat()
	must(t, err)
	if !os.SameFile(a, b) || !vmm.Sealed(two.Memory) {
		t.Errorf("one memory: %v; sealed: %v", os.SameFile(a, b), vmm.Sealed(two.Memory))
	}
	if _, err := two.Memory.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the memory can be written")
	}
}

// ending is a context that ends when it has been asked a number of times.
type ending struct {
	context.Context
	left int
}

func (e *ending) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// memories counts those that this process holds.
func memories(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		if of, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(of, "banger-memory") {
			n++
		}
	}
	return n
}

func TestNoMemoryIsLostWhenTheLoadIsCancelled(t *testing.T) {
	before := memories(t)
	for left, opened := 0, false; !opened; left++ {
		p := &Pool{Cache: Cache{t.TempDir()}}
		tm := plant(t, p.Cache, Key{Image: "a"}, time.Now(), 1)
		f, err := p.Open(&ending{t.Context(), left}, tm.ID)
		switch {
		case err == nil:
			opened = true
			must(t, f.Close())
		case banger.CodeOf(err) != banger.Cancelled:
			t.Fatal(err)
		}
		p.Close()
		if n := memories(t) - before; n != 0 {
			t.Errorf("cancelled when it was asked the %dth time: %d memories are held", left, n)
		}
	}
}

func TestDamagedTemplatesAreNotThereAndGo(t *testing.T) {
	for name, damage := range map[string]func(Template) error{
		"memory changed":   func(t Template) error { return os.WriteFile(t.Memory(), []byte("the memory of b"), 0o600) },
		"memory truncated": func(t Template) error { return os.Truncate(t.Memory(), 3) },
		"state changed":    func(t Template) error { return os.WriteFile(t.State(), []byte("the State"), 0o600) },
		"disk missing":     func(t Template) error { return os.Remove(t.Disk()) },
		"record damaged":   func(t Template) error { return os.WriteFile(t.record(), []byte("{"), 0o600) },
	} {
		for _, opened := range []bool{false, true} {
			p := &Pool{Cache: Cache{t.TempDir()}}
			tm := plant(t, p.Cache, Key{Image: "a"}, time.Now(), 1)
			if opened && name != "record damaged" { // which nobody reads again
				f, err := p.Open(t.Context(), tm.ID)
				must(t, err)
				must(t, f.Close())
			} else if opened {
				continue
			}
			must(t, damage(tm))
			if _, err := p.Open(t.Context(), tm.ID); banger.CodeOf(err) != banger.NotFound {
				t.Errorf("%s, opened before %v: %v", name, opened, err)
			}
			if _, err := os.Stat(tm.Dir); !os.IsNotExist(err) {
				t.Errorf("%s: it is still there: %v", name, err)
			}
			p.Close()
		}
	}
}

func TestTheOldestGoWhereThereAreTooMany(t *testing.T) {
	var newestFirst []Template
	for i := range MaxTemplates + 2 {
		newestFirst = append(newestFirst, Template{ID: string(rune('a' + i)), Size: 1})
	}
	if gone := surplus(newestFirst); len(gone) != 2 || gone[0].ID != "i" {
		t.Errorf("of ten small ones went %+v", gone)
	}
	newestFirst = newestFirst[:3]
	newestFirst[1].Size = MaxBytes
	if gone := surplus(newestFirst); len(gone) != 2 || gone[0].ID != "b" {
		t.Errorf("of three large ones went %+v", gone)
	}
	if gone := surplus(newestFirst[:1]); gone != nil {
		t.Errorf("of one went %+v", gone)
	}
}

func TestPruneSparesWhatIsInUse(t *testing.T) {
	c := Cache{t.TempDir()}
	now := time.Now()
	used := plant(t, c, Key{Image: "used"}, now, 5)
	free := plant(t, c, Key{Image: "free"}, now.Add(-time.Hour), 7)
	inUse := func(t Template) bool { return t.ID == used.ID }
	for _, dry := range []bool{true, false} {
		gone, err := c.Prune(inUse, dry)
		if err != nil || len(gone) != 1 || gone[0].ID != free.ID || gone[0].Size != 7 {
			t.Errorf("dry %v: %+v %v", dry, gone, err)
		}
		left, err := c.List()
		if want := map[bool]int{true: 2, false: 1}[dry]; err != nil || len(left) != want || left[0].ID != used.ID {
			t.Errorf("dry %v: left %+v %v", dry, left, err)
		}
	}
}

func TestWhatAKilledMakerLeftIsNoTemplateAndIsSwept(t *testing.T) {
	c := Cache{t.TempDir()}
	half := filepath.Join(c.Dir, newPrefix+Key{}.ID())
	must(t, os.MkdirAll(half, 0o700))
	must(t, os.WriteFile(filepath.Join(half, memoryName), nil, 0o600))
	mine, err := c.WriteSpec(Spec{Key: Key{Image: "a"}})
	must(t, err)
	_, err = c.WriteSpec(Spec{Key: Key{Image: "b"}})
	must(t, err)
	if all, err := c.List(); err != nil || len(all) != 0 {
		t.Errorf("listed: %+v %v", all, err)
	}
	must(t, c.sweep(mine))
	left, err := filepath.Glob(filepath.Join(c.Dir, ".*"))
	must(t, err)
	if !slices.Equal(left, []string{mine}) {
		t.Errorf("left: %q", left)
	}
}

func TestTheUsualDiskAndLargerOnesShareATemplateAndSmallerOnesAnother(t *testing.T) {
	for size, want := range map[int64]int64{
		1 << 30: 1 << 30, 7 << 30: 1 << 30, banger.DefaultDisk: banger.DefaultDisk, 100 << 30: banger.DefaultDisk,
	} {
		if got := DiskFor(size); got != want {
			t.Errorf("for %d bytes: %d, want %d", size, got, want)
		}
	}
}

func TestSweepTakesWhatAKilledMakerLeft(t *testing.T) {
	c := Cache{t.TempDir()}
	left := []string{filepath.Join(c.Dir, newPrefix+"a"), filepath.Join(c.Dir, specPrefix+"b.json")}
	for _, path := range left {
		must(t, os.Mkdir(path, 0o700))
	}
	whole := plant(t, c, Key{Image: "i"}, time.Now(), 1)
	unlock, err := c.lock(t.Context())
	must(t, err)
	if found, err := c.Unfinished(); err != nil || len(found) > 0 {
		t.Errorf("while one is made: %v, %v", found, err)
	}
	must(t, c.Sweep())
	unlock()
	if found, err := c.Unfinished(); err != nil || len(found) != 2 {
		t.Errorf("unfinished: %v, %v", found, err)
	}
	must(t, c.Sweep())
	if found, err := c.Unfinished(); err != nil || len(found) > 0 {
		t.Errorf("left: %v, %v", found, err)
	}
	must(t, Verify(t.Context(), whole))
	must(t, os.WriteFile(whole.Memory(), []byte("the memory of j"), 0o600))
	if Verify(t.Context(), whole) == nil {
		t.Error("a changed memory passes")
	}
}
