package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// sweep removes what a shim left that was killed: in the middle of a
// suspension, whose VM then lost its memory as in a power cut, or of a resume,
// whose machine may have run since.
func (s *supervisor) sweep() error {
	return errors.Join(os.RemoveAll(s.dir.Scratch("suspended")), os.RemoveAll(s.dir.Scratch("resumed")))
}

// dropSuspended has the VM be no suspended one. After a power cut too it is
// none: a machine that ran, or a disk that changed, must never meet that
// memory.
func (s *supervisor) dropSuspended() error {
	err := os.Rename(s.dir.Suspended(), s.dir.Scratch("resumed"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(string(s.dir))
	}
	if err != nil {
		return err
	}
	s.clear()
	return nil
}

// clear removes what is not a suspended machine any more. To free large files
// takes a while, and only the next shim waits for it.
func (s *supervisor) clear() {
	s.clearing.Go(func() { _ = os.RemoveAll(s.dir.Scratch("resumed")) })
}

// takeUpSuspended takes up the machine this VM was suspended with. That is
// gone from its place before a vCPU runs, and comes back if none did.
func (s *supervisor) takeUpSuspended(ctx context.Context, t *trace) error {
	r, memory, err := s.openSuspended()
	if err != nil {
		return s.forget(err)
	}
	defer memory.Close()
	t.mark("check")
	before, err := s.diskStamp()
	if err != nil {
		return fileError(err, "cannot look at its disk")
	}
	if err := os.Rename(s.dir.Suspended(), s.dir.Scratch("resumed")); err != nil {
		return fileError(err, "cannot take the suspended machine from its place")
	}
	if s.network != nil {
		s.network.RecallAnswers(r.Answers)
	}
	from := Restore{State: filepath.Join(s.dir.Scratch("resumed"), stateName), Token: r.Token}
	if err = syncDir(string(s.dir)); err == nil {
		err = s.restoreVMM(ctx, RestoredSuspended, from, memory, t)
	}
	var never unfit
	if err != nil && !errors.As(err, &never) {
		if s.putBack(before) {
			return err
		}
		err = unfit{err}
	}
	s.clear()
	return err
}

// forget lets go of a suspended machine that can never be taken up.
func (s *supervisor) forget(err error) error {
	var never unfit
	if !errors.As(err, &never) {
		return err
	}
	if err := s.dropSuspended(); err != nil {
		return fileError(err, "cannot remove the suspended machine")
	}
	return never
}

// openSuspended finds what the VM was suspended with and sees that it is
// whole.
func (s *supervisor) openSuspended() (r *Suspended, memory *os.File, err error) {
	r, err = ReadSuspended(s.dir)
	switch {
	case err != nil:
		return nil, nil, err
	case r == nil:
		return nil, nil, unfit{errors.New("its suspended machine is not there")}
	case len(r.Token) != guestwire.TokenLen:
		return nil, nil, unfit{errors.New("the record of its suspended machine is damaged")}
	case r.Driver != s.driver.Name():
		return nil, nil, unfit{fmt.Errorf("it was suspended on %s and is started on %s", r.Driver, s.driver.Name())}
	}
	if _, err := vmm.ReadState(filepath.Join(s.dir.Suspended(), stateName)); err != nil {
		return nil, nil, unless(err, banger.NotFound, banger.BadRequest)
	}
	memory, err = os.OpenFile(filepath.Join(s.dir.Suspended(), memoryName), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, unless(fileError(err, "cannot open its memory"), banger.NotFound)
	}
	sum, err := vmm.Checksum(memory)
	if err == nil && sum != r.Sums.Memory {
		err = unfit{errors.New("its saved memory is damaged")}
	}
	if err != nil {
		_ = memory.Close()
		return nil, nil, err
	}
	return r, memory, nil
}

// unless makes an error of one of these codes one that will never be another.
func unless(err error, codes ...banger.Code) error {
	for _, c := range codes {
		if banger.CodeOf(err) == c {
			return unfit{err}
		}
	}
	return err
}

// putBack makes the VM a suspended one again after a start that failed, where
// its disk shows that no vCPU ran meanwhile, or none that matters.
func (s *supervisor) putBack(before stamp) bool {
	now, err := s.diskStamp()
	if err != nil || now != before {
		return false
	}
	if err := os.Rename(s.dir.Scratch("resumed"), s.dir.Suspended()); err != nil {
		s.log.Error("cannot put the suspended machine back", "error", err)
		return false
	}
	_ = syncDir(string(s.dir))
	return true
}

// stamp tells whether anybody wrote to a file since.
type stamp struct {
	name           string
	size           int64
	mtime, changed unix.Timespec
}

// diskStamp is that of the file that takes the writes.
func (s *supervisor) diskStamp() (stamp, error) {
	path, err := s.diskTop()
	if err != nil || path == "" {
		return stamp{}, err
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	return stamp{path, st.Size, st.Mtim, st.Ctim}, err
}
