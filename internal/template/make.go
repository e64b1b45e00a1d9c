package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// Spec is what a maker is to make.
type Spec struct {
	Key     Key             `json:"key"`
	Machine vmm.Config      `json:"machine"` // with disks that are read only; ours is added
	Setup   guestwire.Setup `json:"setup"`   // what is the image's, not a VM's
}

// diskSerial is the serial of the writable disk.
const diskSerial = "disk"

// WriteSpec writes a spec where its maker finds it and removes it.
func (c Cache) WriteSpec(s Spec) (path string, err error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return "", err
	}
	path = filepath.Join(c.Dir, specPrefix+s.Key.ID()+".json")
	return path, os.WriteFile(path, text, 0o600)
}

// Maker makes templates: it boots a machine, warms it up, saves it, tries
// whether it comes back, and only then shows it to anybody.
type Maker struct {
	Driver func(name string) (vmm.Driver, error)
	Log    *slog.Logger
}

// limit bounds the making of one template, on a busy host too.
const limit = 5 * time.Minute

// Make makes what the spec at path asks for, one template at a time in each
// cache. One that is there already is left as it is.
func (m Maker) Make(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := Cache{filepath.Dir(path)}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer os.Remove(path)
	var spec Spec
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		return fmt.Errorf("cannot read what to make: %w", err)
	}
	if err := c.sweep(path); err != nil {
		return err
	}
	if _, err := c.Get(spec.Key.ID()); err == nil {
		return nil
	}
	if err := c.Remove(spec.Key.ID()); err != nil { // one without a record
		return err
	}
	return m.build(ctx, c, spec)
}

func (m Maker) build(ctx context.Context, c Cache, spec Spec) error {
	dir := filepath.Join(c.Dir, newPrefix+spec.Key.ID())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	driver, err := m.Driver(spec.Key.Driver)
	if err != nil {
		return err
	}
	w := &workshop{driver: driver, spec: spec, dir: dir}
	t := Template{Key: spec.Key, ID: spec.Key.ID(), Dir: dir, CreatedAt: time.Now().UTC()}
	for _, step := range []struct {
		name string
		do   func(context.Context, *Template) error
	}{{"save", w.save}, {"try", w.try}, {"describe", w.describe}} {
		began := time.Now()
		if err := step.do(ctx, &t); err != nil {
			return fmt.Errorf("cannot %s the machine: %w", step.name, err)
		}
		m.Log.Info("making a template", "step", step.name, "took", time.Since(began).String())
	}
	// Nothing is synced: what a power cut spoils has a wrong sum.
	if err := os.Rename(dir, filepath.Join(c.Dir, t.ID)); err != nil {
		return err
	}
	m.Log.Info("made a template", "template", t.ID, "size", banger.FormatSize(t.Size))
	return c.trim()
}

// workshop is where one template is made.
type workshop struct {
	driver vmm.Driver
	spec   Spec
	dir    string
}

func (w *workshop) config(disk string) vmm.Config {
	cfg := w.spec.Machine
	cfg.Dir = w.dir
	cfg.Disks = append(slices.Clone(cfg.Disks), vmm.Disk{Serial: diskSerial, Path: disk})
	return cfg
}

// save boots a machine that is nobody's, warms it up and saves it. It never
// runs again, so that its disk needs no copy.
func (w *workshop) save(ctx context.Context, t *Template) error {
	if err := ext4.MakeEmpty(ctx, t.Disk(), w.spec.Key.DiskBytes); err != nil {
		return err
	}
	token := guestwire.NewToken()
	t.Token = token[:]
	machine, link, err := w.bootUp(ctx, token)
	if err != nil {
		return err
	}
	defer end(machine)
	if err := w.warm(ctx, link); err != nil {
		return err
	}
	if err := settle(ctx, machine.PID()); err != nil {
		return err
	}
	return machine.Save(ctx, vmm.Saved{Memory: memoryName, State: stateName}, nil)
}

// boots is how often a machine is booted at most: a guest resets at once when
// its kernel had no luck on a busy host.
const boots = 3

// bootUp boots the machine until its agent answers.
func (w *workshop) bootUp(ctx context.Context, token [guestwire.TokenLen]byte) (vmm.Machine, *guestlink.Link, error) {
	for boot := 1; ; boot++ {
		machine, err := w.driver.Boot(ctx, w.config(diskName), vmm.IO{})
		if err != nil {
			return nil, nil, err
		}
		link, err := connect(ctx, machine, func() (*guestwire.Conn, error) {
			return guestwire.Dial(unplugged(machine).Agent(), token, nil)
		})
		if err == nil {
			return machine, link, nil
		}
		select { // it says how it ended only if it may
		case <-machine.Done():
		case <-time.After(time.Second):
		}
		end(machine)
		if machine.Exit().Reason != vmm.Reset || boot == boots {
			return nil, nil, err
		}
	}
}

func end(m vmm.Machine) {
	_ = m.Signal(os.Kill)
	<-m.Done()
	_ = m.Agent().Close()
	if c := m.Cable(); c != nil {
		_ = c.Close()
	}
}

// unplugged takes the frames of a machine whose cable leads nowhere.
func unplugged(m vmm.Machine) vmm.Machine {
	if c := m.Cable(); c != nil {
		go io.Copy(io.Discard, c) // until its end
	}
	return m
}

// connect speaks to a guest. A guest that says nothing is given up with ctx.
func connect(ctx context.Context, m vmm.Machine, dial func() (*guestwire.Conn, error)) (*guestlink.Link, error) {
	stop := context.AfterFunc(ctx, func() { _ = m.Agent().Close() })
	defer stop()
	conn, err := dial()
	if err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return guestlink.Over(conn), nil
}

// patience is how often the guest is asked whether its init is done. It answers
// that it is not after a minute, lest anybody wait longer for a unit that hangs. A
// maker keeps nobody waiting, and being of the lowest priority takes several times
// as long on a busy host.
const patience = 3

// awaitInit waits for the image's own init, which begins with the first setup.
func (w *workshop) awaitInit(ctx context.Context, link *guestlink.Link) error {
	if w.spec.Key.Init != banger.InitSystemd {
		return nil
	}
	for range patience {
		if done, err := link.Booted(ctx); err != nil || done {
			return err
		}
	}
	return errors.New("systemd has not brought everything up")
}

// The identity of a machine that is nobody's.
const (
	neutralName = "localhost"
	neutralID   = "00000000000000000000000000000001" // systemd takes 0 for none
)

// neutral makes the machine what any VM may start from: all that is a VM's own
// is written over when one does.
func (w *workshop) neutral() guestwire.Setup {
	s := w.spec.Setup
	s.Anybody, s.DiskBytes = true, w.spec.Key.DiskBytes
	s.Hostname, s.MachineID, s.GuestIP = neutralName, neutralID, ""
	s.Network = w.place(neutralAddress)
	s.TimeNanos = time.Now().UnixNano()
	return s
}

// Addresses of machines that are nobody's, and that nobody can have.
var neutralAddress, otherAddress = [4]byte{169, 254, 1, 1}, [4]byte{169, 254, 1, 2}

// place is where the guest is on its cable: with the gateway that the VM will have.
func (w *workshop) place(address [4]byte) *guestwire.Network {
	if w.spec.Setup.Network == nil {
		return nil
	}
	n := *w.spec.Setup.Network
	n.Address = address
	return &n
}

// try takes the saved machine up as a start would, on a copy of its disk.
func (w *workshop) try(ctx context.Context, t *Template) error {
	const trial = "trial.ext4"
	defer os.Remove(filepath.Join(w.dir, trial))
	if err := ext4.Copy(ctx, t.Disk(), filepath.Join(w.dir, trial)); err != nil {
		return err
	}
	memory, err := vmm.SealedCopy(t.Memory())
	if err != nil {
		return err
	}
	defer memory.Close()
	if t.Sums.Memory, err = vmm.Checksum(memory); err != nil {
		return err
	}
	machine, err := w.driver.Restore(ctx, w.config(trial), vmm.Source{Memory: memory, State: stateName}, vmm.IO{})
	if err != nil {
		return err
	}
	defer end(machine)
	link, err := connect(ctx, machine, func() (*guestwire.Conn, error) {
		return guestwire.Redial(unplugged(machine).Agent(), [guestwire.TokenLen]byte(t.Token), guestwire.NewToken(), nil)
	})
	if err != nil {
		return err
	}
	result, err := link.Setup(ctx, w.neutral())
	if err == nil && len(result.Failed) > 0 {
		err = fmt.Errorf("the guest could not be set up: %q", result.Failed)
	}
	if err != nil {
		return err
	}
	return exec(ctx, link, warmUp[0])
}

// describe writes the record.
func (w *workshop) describe(ctx context.Context, t *Template) (err error) {
	if t.Sums.State, err = artifact.SHA256(ctx, t.State()); err != nil {
		return err
	}
	if t.Sums.Disk, err = sumOf(t.Disk()); err != nil {
		return err
	}
	t.Size = blocks(t.Dir)
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(t.record(), append(text, '\n'), 0o600)
}
