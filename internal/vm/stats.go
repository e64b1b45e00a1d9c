package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"banger"
	"banger/internal/shim"
)

// guestTimeout bounds questions to a guest, which may be too busy to answer.
const guestTimeout = 5 * time.Second

// Health implements Service.
func (m *Manager) Health(ctx context.Context, id string) (uptimeSeconds float64, problems []string, err error) {
	row, l, status, err := m.alive(ctx, id)
	if err != nil {
		return 0, nil, banger.Wrap(err, "cannot ask for the health of %s", row.Name)
	}
	if status.State != shim.Running {
		problem := "the guest is " + string(status.State)
		if status.Problem != "" {
			problem += ": " + status.Problem
		}
		return 0, []string{problem}, nil
	}
	s, err := l.shim()
	if err != nil {
		return 0, nil, banger.Wrap(err, "cannot ask for the health of %s", row.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	h, err := s.GuestHealth(ctx)
	return h.UptimeSeconds, h.Problems, banger.Wrap(err, "cannot ask for the health of %s", row.Name)
}

// alive is a VM that runs.
func (m *Manager) alive(ctx context.Context, id string) (banger.VM, *live, shim.Status, error) {
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return banger.VM{Name: id}, nil, shim.Status{}, err
	}
	l := m.liveOf(id)
	if l == nil || l.ended() {
		return row, nil, shim.Status{}, notRunning(nil, row)
	}
	if _, err := m.answering(ctx, l); err != nil {
		return row, nil, shim.Status{}, err
	}
	status, _, _ := l.seen()
	if status == nil {
		return row, nil, shim.Status{}, notRunning(nil, row)
	}
	return row, l, *status, nil
}

// Stats implements Service. Of a VM that does not run there is only its disk.
func (m *Manager) Stats(ctx context.Context, id string) (banger.Stats, error) {
	row, l, status, err := m.alive(ctx, id)
	if err != nil && banger.CodeOf(err) != banger.NotRunning {
		return banger.Stats{}, banger.Wrap(err, "cannot measure %s", row.Name)
	}
	sample := m.sample(id, status.VMMPID)
	if err == nil {
		m.addGuest(ctx, &sample, l, status)
	}
	return sample, m.Store.SetStats(ctx, id, sample)
}

// ticksPerSecond is what the kernel counts CPU time for user space in, on
// every architecture it has now.
const ticksPerSecond = 100

// addProcess reads what the VMM uses; one that is gone, or 0, uses nothing.
func addProcess(s *banger.Stats, pid int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return
	}
	// The command's name comes second and may hold blanks.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return
	}
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	pages, _ := strconv.ParseInt(string(fields[21]), 10, 64)
	s.CPUSeconds = (user + system) / ticksPerSecond
	s.ResidentBytes = pages * int64(os.Getpagesize())
}

// addGuest asks the guest, where it can answer.
func (m *Manager) addGuest(ctx context.Context, s *banger.Stats, l *live, status shim.Status) {
	client, err := l.shim()
	if err != nil || status.State != shim.Running {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	g, err := client.GuestStats(ctx)
	if err != nil {
		m.Log.Warn("cannot ask a guest for its stats", "vm", l.id, "err", err)
		return
	}
	s.GuestSampledAt = time.Now().UTC()
	s.GuestMemTotal, s.GuestMemUsed, s.GuestLoad1 = g.MemTotal, g.MemUsed, g.Load1
	s.GuestUptimeSecs, s.GuestProcs = g.UptimeSeconds, g.Processes
	s.GuestDiskUsed, s.GuestDiskTotal = g.DiskUsed, g.DiskTotal
}
