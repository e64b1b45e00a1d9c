package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/bench"
	"banger/internal/ext4"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// hand is the machine of the VM bench as one starts it who has the VMM, its manual and
// banger's files: no driver, no namespaces, nothing that holds the VMM back, a card that
// somebody made before. Only whom it asks for a command is banger's, the agent in the guest.
type hand struct {
	ctx     context.Context // ends whatever goes on
	program handProgram
	launch  shim.Launch // of the VM
	cmdline string      // its kernel's
	tap     string      // one that this user may open, or ""
	dir     string      // where machines are, each in a directory of its own
	memory  string      // a directory in RAM, where the saved machine is
	made    int         // machines
	token   [guestwire.TokenLen]byte
}

// handProgram is a VMM.
type handProgram interface {
	// boot starts the machine, with the memory in a file where it is to be saved.
	boot(m *handMachine, saved bool) error
	// save halts the machine and writes it down.
	save(m *handMachine) error
	// load starts the machine that was saved, each with a private view of the same memory.
	load(m *handMachine) error
}

func openHand(b *benchmark) (h *hand, err error) {
	vm, err := b.up()
	if err != nil {
		return nil, err
	}
	h = &hand{ctx: b.ctx, tap: b.tap}
	if h.launch, err = shim.ReadLaunch(paths.VM(vm.Dir)); err != nil {
		return nil, err
	}
	said, err := b.output("exec", "bench", "--", "cat", "/proc/cmdline")
	if err != nil {
		return nil, err
	}
	h.cmdline = ownWords(said)
	h.program = handQEMU{h}
	if h.launch.Driver == "firecracker" {
		h.program = handFirecracker{h}
	}
	if h.dir, err = os.MkdirTemp("", "banger-hand-"); err != nil {
		return nil, err
	}
	if h.memory, err = os.MkdirTemp("/dev/shm", "banger-hand-"); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, b.command("stop", "bench")()
}

// ownWords leaves out of a command line what a VMM puts there itself.
func ownWords(cmdline string) string {
	var own []string
	for word := range strings.FieldsSeq(cmdline) {
		if word != "pci=off" && !strings.HasPrefix(word, "virtio_mmio.device=") {
			own = append(own, word)
		}
	}
	return strings.Join(own, " ")
}

func (h *hand) close() error { return errors.Join(os.RemoveAll(h.dir), os.RemoveAll(h.memory)) }

// Where a saved machine is.
func (h *hand) savedMemory() string { return filepath.Join(h.memory, "memory") }
func (h *hand) savedState() string  { return filepath.Join(h.memory, "state") }
func (h *hand) savedDisk() string   { return filepath.Join(h.memory, "disk") }

// diskFile is the writable disk in a machine's directory.
const diskFile = "disk.ext4"

// own is a directory for a machine, which makes its own disk there.
func (h *hand) own(disk func(path string) error) (*handMachine, error) {
	h.made++
	m := &handMachine{dir: filepath.Join(h.dir, fmt.Sprint(h.made))}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return nil, err
	}
	return m, disk(filepath.Join(m.dir, diskFile))
}

func (h *hand) emptyDisk(path string) error {
	return ext4.MakeEmpty(h.ctx, path, h.launch.Setup.DiskBytes)
}

func (h *hand) copiedDisk(path string) error { return ext4.Copy(h.ctx, h.savedDisk(), path) }

// disks are the machine's in the order of the VM's, the writable one that of its directory.
func (h *hand) disks() []vmm.Disk {
	var all []vmm.Disk
	for _, d := range h.launch.Machine.Disks {
		if !d.ReadOnly {
			d.Path, d.Layers = diskFile, nil
		}
		all = append(all, d)
	}
	return all
}

// cold is a cold run by hand of a machine whose disk is there: boot, one command, the end.
func (h *hand) cold(m *handMachine) (err error) {
	defer func() { err = errors.Join(m.told(err), m.end()) }()
	return h.up(m, false)
}

func (h *hand) up(m *handMachine, saved bool) error {
	defer h.bound(m)()
	if err := h.program.boot(m, saved); err != nil {
		return err
	}
	token := guestwire.NewToken()
	conn, err := guestwire.Dial(m.agent, token, nil)
	if err != nil {
		return err
	}
	h.token = token
	setup := h.launch.Setup
	setup.TimeNanos, setup.Entropy = time.Now().UnixNano(), make([]byte, 64)
	if _, err := guestlink.Over(conn).Setup(h.ctx, setup); err != nil {
		return err
	}
	return bench.RunTrue(h.ctx, conn)
}

// bound ends a machine that takes too long, or whose benchmark ends.
func (h *hand) bound(m *handMachine) (stop func()) {
	ctx, cancel := context.WithTimeout(h.ctx, templateLimit)
	over := context.AfterFunc(ctx, m.kill)
	return func() { over(); cancel() }
}

// saveOne saves a machine that was booted for it, with its disk.
func (h *hand) saveOne() (err error) {
	m, err := h.own(h.emptyDisk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(m.told(err), m.end()) }()
	if err := h.up(m, true); err != nil {
		return err
	}
	defer h.bound(m)()
	if err := h.program.save(m); err != nil {
		return err
	}
	return ext4.Copy(h.ctx, filepath.Join(m.dir, diskFile), h.savedDisk())
}

// warm is a warm run by hand of a machine whose disk is there: load, one command, the end.
func (h *hand) warm(m *handMachine) (err error) {
	defer func() { err = errors.Join(m.told(err), m.end()) }()
	defer h.bound(m)()
	if err := h.program.load(m); err != nil {
		return err
	}
	conn, err := guestwire.Redial(m.agent, h.token, guestwire.NewToken(), nil)
	if err != nil {
		return err
	}
	return bench.RunTrue(h.ctx, conn)
}

// coldByHand and warmByHand measure runs beside the same by hand, in turn. What a disk takes to be
// made or copied banger's have in their time, and those by hand have not.
func (b *benchmark) coldByHand() error {
	return b.byHand(func(h *hand) error {
		return b.besideHand("cold run --rm --cold (floor: VMM by hand, exec)", 1.2, b.often(slow), h.emptyDisk, h, h.cold, "--cold")
	})
}

func (b *benchmark) warmByHand() error {
	return b.byHand(func(h *hand) error {
		if err := h.saveOne(); err != nil {
			return err
		}
		return b.besideHand("warm run --rm (floor: load by hand, exec)", 1.3, b.often(quick), h.copiedDisk, h, h.warm)
	})
}

func (b *benchmark) byHand(measure func(*hand) error) (err error) {
	pool := b.templates()
	defer pool.Close()
	fork, err := b.awaitTemplate(b.floor, pool) // or it would be made beside what is measured
	if err != nil {
		return err
	}
	_ = fork.Close()
	h, err := openHand(b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	return measure(h)
}

func (b *benchmark) besideHand(what string, times float64, n int, disk func(string) error, h *hand, by func(*handMachine) error, flags ...string) error {
	run := b.command(append(append([]string{"run", "--rm"}, flags...), "--", "true")...)
	if err := run(); err != nil { // has the daemon read the template
		return err
	}
	var all [2][]time.Duration
	for range n {
		m, err := h.own(disk)
		if err != nil {
			return err
		}
		for i, f := range []func() error{func() error { return by(m) }, run} {
			if err := b.alone(); err != nil {
				return err
			}
			took, err := timed(1, f)
			if err != nil {
				return err
			}
			all[i] = append(all[i], took...)
		}
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
	}
	r := medians(what, 0, all[1], all[0])
	r.times = times
	r.print()
	return nil
}

// tail is the end of a file, of something that went wrong.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		_, _ = f.Seek(max(0, info.Size()-1000), io.SeekStart)
	}
	text, _ := io.ReadAll(f)
	return string(text)
}
