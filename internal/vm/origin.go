package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banger"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Names of a saved machine's files, as a shim gives them.
const (
	memoryFile = "memory"
	stateFile  = "state"
)

// origin is a VM at rest, which others can be made from.
type origin struct {
	dir   string        // has a disk that nobody writes
	pause time.Duration // that the VM stood still for it
	saved *saved        // its machine; nil where it does not run

	giving sync.Mutex // of the disk, one at a time
}

// giveDisk makes dir hold a disk of its own like the origin's.
func (o *origin) giveDisk(ctx context.Context, dir string) error {
	o.giving.Lock()
	defer o.giving.Unlock()
	return fileError(layers.Take(ctx, o.dir, dir, true, nil))
}

// saved is a machine that others are restored from.
type saved struct {
	memory  *os.File // sealed
	state   string
	token   []byte
	driver  string
	machine vmm.Config // as it ran
}

func (o *origin) close() {
	if o.saved != nil && o.saved.memory != nil {
		_ = o.saved.memory.Close()
	}
}

// restore is what has a shim begin as this machine and as nothing else.
func (s *saved) restore() *shim.Restore {
	return &shim.Restore{State: s.state, Token: s.token, Memory: s.memory, Strict: true}
}

// originOf copies a VM into dir, whatever it does now, and leaves it as it is.
// The VM is locked.
func (m *Manager) originOf(ctx context.Context, row banger.VM, dir string, p Progress) (*origin, error) {
	l, err := m.attach(ctx, row)
	if err != nil {
		return nil, err
	}
	o := &origin{dir: dir}
	if l != nil {
		err = m.saveInRAM(ctx, row, l, o, p)
	} else {
		err = m.takeAtRest(ctx, row, o)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// saveInRAM saves a VM that runs. Its memory goes into a file without a name
// that its shim opens through this process: nothing of it is written to a disk,
// and it is gone with its last user.
func (m *Manager) saveInRAM(ctx context.Context, row banger.VM, l *live, o *origin, p Progress) error {
	memory, err := vmm.NewMemory()
	if err != nil {
		return err
	}
	o.saved = &saved{memory: memory, state: filepath.Join(o.dir, stateFile)}
	was, err := m.save(ctx, row, l, shim.SaveRequest{
		Dir: o.dir, Memory: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), memory.Fd()),
	}, p)
	if err != nil {
		return err
	}
	o.pause = time.Duration(was.PauseMillis * float64(time.Millisecond))
	o.saved.token, o.saved.driver, o.saved.machine = was.Token, was.Driver, was.Machine
	return vmm.Seal(memory)
}

// save has the shim of a VM save it, once its guest is up.
func (m *Manager) save(ctx context.Context, row banger.VM, l *live, r shim.SaveRequest, p Progress) (shim.Saved, error) {
	if err := m.becomeReady(ctx, row, l, p); err != nil {
		return shim.Saved{}, err
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return shim.Saved{}, err
	}
	p.Stage("save VM")
	return s.Save(ctx, r)
}

// takeAtRest takes a VM that does not run: its disk, and its memory where it
// is suspended.
func (m *Manager) takeAtRest(ctx context.Context, row banger.VM, o *origin) error {
	dir := m.Dirs.VM(row.ID)
	was, err := m.suspended(row.ID)
	if err != nil {
		return err
	}
	if was != nil {
		if o.saved, err = suspendedIn(dir, was); err != nil {
			return err
		}
	}
	return fileError(layers.Take(ctx, string(dir), o.dir, false, nil))
}

func suspendedIn(dir paths.VM, was *shim.Suspended) (*saved, error) {
	memory, err := sealedMemory(filepath.Join(dir.Suspended(), memoryFile), was.Sums.Memory)
	if err != nil {
		return nil, err
	}
	return &saved{
		memory: memory, state: filepath.Join(dir.Suspended(), stateFile),
		token: was.Token, driver: was.Driver, machine: was.Machine,
	}, nil
}

// sealedMemory takes a saved memory into RAM. What was read is what is used:
// the sum is the copy's.
func sealedMemory(path, sum string) (*os.File, error) {
	memory, err := vmm.SealedCopy(path)
	if err != nil {
		return nil, damaged(err)
	}
	if is, err := vmm.Checksum(memory); err != nil || is != sum {
		return nil, errors.Join(damaged(err), memory.Close())
	}
	return memory, nil
}

func damaged(err error) error {
	if err == nil {
		return banger.Errorf(banger.Conflict, "its saved memory is damaged: it is not what was saved")
	}
	return banger.Errorf(banger.Conflict, "its saved memory is damaged: %w", err)
}
