package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/vmm"
)

// suspend saves the machine in the VM's directory and ends it. Renaming the
// directory of the saved machine into its place is what decides: a shim that
// is killed before leaves a VM after a power cut, one that is killed after it
// leaves a suspended one, since the machine does not run any more. Whether the VM is
// as idle as it is to be is looked at then too: it may have been used meanwhile.
func (s *supervisor) suspend(ctx context.Context, idle IfIdle) error {
	err := s.noticeUnattended(ctx, idle)
	if err == nil {
		s.mu.Lock()
		err = s.refuseUsed(idle)
		s.mu.Unlock()
	}
	if err != nil {
		return err
	}
	h, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer h.done()
	dir := s.dir.Scratch("suspended")
	if err = errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return fileError(err, "cannot make a directory")
	}
	to := vmm.Saved{Memory: filepath.Join(dir, memoryName), State: filepath.Join(dir, stateName)}
	if err = h.machine.Save(h.ctx, to, nil); err != nil {
		err = s.unsaved(h, err)
	} else if err = s.settle(h, dir, idle); err != nil && !h.paused {
		if err := s.runOn(h.ctx, h.boot); err != nil {
			s.log.Error("a VM that could not be suspended stands still", "error", err)
		}
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return err
	}
	_ = h.machine.Signal(killSignal)
	<-h.machine.Done() // or somebody resumes it in its last moment
	return nil
}

// settle makes what was saved safe, and then the VM a suspended one.
func (s *supervisor) settle(h *hold, dir string, idle IfIdle) error {
	if err := s.syncDisk(); err != nil {
		return fileError(err, "cannot write out its disk")
	}
	record, err := describe(dir)
	if err != nil {
		return fileError(err, "cannot write out its memory")
	}
	record.At, record.Token, record.Driver, record.Machine = time.Now().UTC(), h.token, s.driver.Name(), s.launch.Machine
	if s.network != nil {
		record.Answers = s.network.Answers()
	}
	if err := writeJSON(filepath.Join(dir, recordName), record); err != nil { // syncs the directory
		return fileError(err, "cannot record what was saved")
	}
	if err := s.commit(h, dir, idle); err != nil {
		return err
	}
	if err := syncDir(string(s.dir)); err != nil {
		s.log.Error("a power cut may undo the suspension", "error", err)
	}
	return nil
}

// commit makes the VM a suspended one, unless it is to end in another way or is in
// use.
func (s *supervisor) commit(h *hold, dir string, idle IfIdle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-h.machine.Done():
		return banger.Errorf(banger.NotRunning, "its VMM ended meanwhile")
	default:
	}
	if s.exit != nil || s.asked != "" {
		return s.notRunning()
	}
	if err := s.refuseUsed(idle); err != nil {
		return err
	}
	if err := os.Rename(dir, s.dir.Suspended()); err != nil {
		return fileError(err, "cannot put what was saved in its place")
	}
	s.asked = ReasonSuspended
	s.wake()
	return nil
}

// describe writes the saved files out and takes their sums.
func describe(dir string) (r Suspended, err error) {
	for _, name := range []string{memoryName, stateName} {
		if err := r.add(filepath.Join(dir, name), name == memoryName); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r *Suspended) add(path string, memory bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	size, err := allocated(f)
	if err != nil {
		return err
	}
	r.SizeBytes += size
	if memory {
		r.Sums.Memory, err = vmm.Checksum(f)
	}
	return err
}
