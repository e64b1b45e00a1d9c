package vm

import (
	"context"
	"time"

	"banger"
	"banger/internal/config"
)

// Samples that nobody asked for are taken from outside alone: to ask a guest wakes
// it, and an emulated one takes milliseconds to answer. They stay in memory, where
// Get and List find them, and reach the ledger once a minute.

// sampleAll measures what each VM that runs uses of the host.
func (m *Manager) sampleAll() {
	m.mu.Lock()
	all := make([]*live, 0, len(m.live))
	for _, l := range m.live {
		all = append(all, l)
	}
	m.mu.Unlock()
	for _, l := range all {
		status, gone, _ := l.seen()
		if gone || status == nil || status.VMMPID == 0 {
			continue
		}
		s := m.sample(l.id, status.VMMPID)
		l.mu.Lock()
		l.sample = s
		l.mu.Unlock()
	}
}

// sample measures a VM from outside.
func (m *Manager) sample(id string, pid int) banger.Stats {
	s := banger.Stats{SampledAt: time.Now().UTC(), DiskUsedBytes: diskUse(m.Dirs.VM(id))}
	addProcess(&s, pid)
	return s
}

// withSample is stats with what is known of the host's side now. What the guest
// said of itself stays, as of when it did.
func (l *live) withSample(stats banger.Stats) (_ banger.Stats, newer bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.sample.SampledAt.After(stats.SampledAt) {
		return stats, false
	}
	stats.SampledAt, stats.CPUSeconds = l.sample.SampledAt, l.sample.CPUSeconds
	stats.ResidentBytes, stats.DiskUsedBytes = l.sample.ResidentBytes, l.sample.DiskUsedBytes
	return stats, true
}

// writeSamples saves the last samples, all in one commit. What a guest said of itself
// stays as the ledger has it: somebody may be asking it just now.
func (m *Manager) writeSamples(ctx context.Context, all []use) {
	samples := map[string]func(banger.Stats) (banger.Stats, bool){}
	for _, u := range all {
		if _, newer := u.live.withSample(u.row.Stats); newer {
			samples[u.row.ID] = u.live.withSample
		}
	}
	if err := m.Store.ChangeStats(ctx, samples); err != nil {
		m.Log.Warn("cannot record what VMs use", "err", err)
	}
}

// sampleInterval is the configured one; a configuration that cannot be read changes
// nothing.
func (m *Manager) sampleInterval(last time.Duration) time.Duration {
	c, _, err := m.Config()
	if err != nil {
		return last
	}
	return max(c.StatsPollInterval, config.LeastStatsPoll)
}
