package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"banger"
	"banger/internal/paths"
	"banger/internal/shim"
)

// scopes moves each VM that starts out of the daemon's service into a scope of its
// own: its memory and its end are then nobody else's. The start does not wait
// for it, and a VM that stays where it is does not suffer.
type scopes struct {
	ctx  context.Context // of the daemon, whose end waits for nobody
	vms  string
	move func(ctx context.Context, name, description string, pids []int) error

	inside func(pid int) bool // the service
	log    *slog.Logger
	work   sync.WaitGroup
}

// moveTime bounds asking systemd, which may have to start the user's bus first, on
// processors that a booting VM wants too.
const moveTime = time.Minute

// started is told of a VM whose shim and VMM run.
func (s *scopes) started(dir paths.VM) {
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, moveTime)
		defer cancel()
		id := filepath.Base(string(dir))
		pids, err := s.processes(id)
		if err == nil && len(pids) > 0 {
			err = s.move(ctx, "banger-vm-"+banger.ShortID(id)+"-"+banger.ShortID(banger.NewID()), "banger VM "+id, pids)
		}
		if err != nil {
			s.log.Warn("cannot give a VM a scope of its own", "vm", id, "error", err)
		}
	})
}

// takeOut moves the VMs that an earlier daemon left in the service.
func (s *scopes) takeOut() {
	if s == nil {
		return
	}
	residents, err := shim.Residents(s.vms)
	if err != nil {
		s.log.Warn("cannot look for VMs inside the service", "error", err)
		return
	}
	for _, r := range residents {
		if r.Shim && r.InPlace && s.inside(r.PID) {
			s.started(paths.VM(filepath.Join(s.vms, r.VM)))
		}
	}
}

// processes are those of a VM: its shim and all of the shim's session.
func (s *scopes) processes(id string) (pids []int, err error) {
	residents, err := shim.Residents(s.vms)
	session := 0
	for _, r := range residents {
		if r.Shim && r.InPlace && r.VM == id {
			session = r.PID
		}
	}
	for _, r := range residents {
		if session != 0 && r.Session == session {
			pids = append(pids, r.PID)
		}
	}
	return pids, err
}

func (s *scopes) close() {
	if s != nil {
		s.work.Wait()
	}
}
