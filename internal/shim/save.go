package shim

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/vmm"
)

// SaveRequest is where a machine is saved.
type SaveRequest struct {
	// Dir is an existing directory. It takes a file "state", the files of
	// the disk, and "memory" unless that goes elsewhere. An absolute path.
	Dir string `json:"dir"`
	// Memory is /proc/PID/fd/N of a vmm.NewMemory that takes the memory; ""
	// for a file in Dir.
	Memory string `json:"memory,omitempty"`
}

// Saved is what a Restore needs beside the files.
type Saved struct {
	Token       []byte     `json:"token"`        // of the host that spoke to the guest last
	PauseMillis float64    `json:"pause_millis"` // how long the VM stood still, 0 for one that was paused
	Driver      string     `json:"driver"`
	Machine     vmm.Config `json:"machine"` // as it ran
}

// Names of a saved machine's files.
const (
	memoryName = "memory"
	stateName  = "state"
)

const (
	// saveBound is far above what the largest memory takes to be written.
	saveBound = 15 * time.Minute
	// undoBound is for letting a VM run again whatever became of a save or a pause.
	undoBound = 30 * time.Second
)

// save saves the machine into a directory of somebody else's.
func (s *supervisor) save(ctx context.Context, r SaveRequest) (saved Saved, err error) {
	to, err := r.open()
	if err != nil {
		return saved, err
	}
	if to.Into != nil {
		defer to.Into.Close()
	}
	h, err := s.hold(ctx)
	if err != nil {
		return saved, err
	}
	defer h.done()
	before, err := entries(r.Dir)
	if err != nil {
		return saved, fileError(err, "cannot read its directory")
	}
	still, err := s.saveHeld(h, to, func() error { return s.takeDisk(h, r.Dir) })
	if err != nil {
		removeNew(r.Dir, before)
		return saved, err
	}
	return Saved{Token: h.token, PauseMillis: still, Driver: s.driver.Name(), Machine: s.launch.Machine}, nil
}

// open says where the machine goes.
func (r SaveRequest) open() (to vmm.Saved, err error) {
	if !filepath.IsAbs(r.Dir) {
		return to, banger.Errorf(banger.BadRequest, "%q is no absolute path", r.Dir)
	}
	to = vmm.Saved{Memory: filepath.Join(r.Dir, memoryName), State: filepath.Join(r.Dir, stateName)}
	if r.Memory != "" {
		if to.Into, err = os.OpenFile(r.Memory, os.O_RDWR, 0); err != nil {
			return to, fileError(err, "cannot open the file for the memory")
		}
		// The caller may have given up meanwhile, and have another file by
		// that number.
		if !vmm.Fresh(to.Into) {
			_ = to.Into.Close()
			return to, banger.Errorf(banger.BadRequest, "%s is no empty memory", r.Memory)
		}
	}
	return to, nil
}

// saveHeld saves the machine, lets it run again if it did, and says how many
// milliseconds it stood still.
func (s *supervisor) saveHeld(h *hold, to vmm.Saved, frozen func() error) (still float64, err error) {
	began := time.Now()
	to.Pausing = func() { began = time.Now() }
	if err := h.machine.Save(h.ctx, to, frozen); err != nil {
		return 0, s.unsaved(h, err)
	}
	if h.paused {
		return 0, nil
	}
	if err := s.runOn(h.ctx, h.boot); err != nil {
		return 0, err
	}
	return float64(time.Since(began)) / float64(time.Millisecond), nil
}

// unsaved looks after a machine whose Save failed, and says why it did: an end
// that was asked for is a better reason than what that led to.
func (s *supervisor) unsaved(h *hold, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.paused {
		s.behind(h.boot) // it may have stood still for a while
	}
	if s.exit != nil || s.asked != "" {
		return s.notRunning()
	}
	if diskFull(err) {
		return fileError(err, "cannot write what is to be saved")
	}
	return err
}

// runOn lets a machine run that was saved, or could not be paused, and sees to its clock.
func (s *supervisor) runOn(ctx context.Context, b *boot) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	err := b.machine.Resume(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.exit == nil && s.asked == "" && s.boot == b {
			s.paused = true // as it is: whoever resumes it tries again
			s.wake()
		}
		return banger.Wrap(err, "cannot let it run on")
	}
	s.behind(b)
	return nil
}

// behind sets the guest up again that stood still, while others go on: its
// clock is late, and its random numbers may be known to others by now. With mu
// held.
func (s *supervisor) behind(b *boot) {
	if s.exit != nil || s.asked != "" || b.link == nil {
		return
	}
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), vmmBound)
		defer cancel()
		if err := s.refresh(ctx, b); err != nil {
			s.log.Warn("the guest's clock is late by its pause", "error", err)
		}
	})
}

func entries(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}

// removeNew removes what was not in a directory before.
func removeNew(dir string, before []string) {
	now, _ := entries(dir)
	for _, name := range now {
		if !slices.Contains(before, name) {
			_ = os.Remove(filepath.Join(dir, name))
		}
	}
}
