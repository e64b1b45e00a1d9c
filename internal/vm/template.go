package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmm"
)

// Templates are saved machines that first starts are forked from.
type Templates interface {
	// Open gives a template that is whole: not_found where there is none.
	Open(ctx context.Context, id string) (*template.Fork, error)
	// Want has a template made in the background, some time.
	Want(spec template.Spec)
	// Remove removes one that turned out to be of no use.
	Remove(id string) error
}

// begin is what a start begins with.
type begin struct {
	launch  shim.Launch
	runtime banger.Runtime
	spec    template.Spec  // of the template that fits
	fork    *template.Fork // nil for a cold boot
	fresh   bool           // the VM never ran, and may begin as a fork
}

// fromTemplate opens the template of this start, if there is one.
func (m *Manager) fromTemplate(ctx context.Context, b *begin) {
	if b.fresh = b.spec.Key.Image != ""; !b.fresh {
		return
	}
	fork, err := m.Templates.Open(ctx, b.spec.Key.ID())
	if err != nil {
		if banger.CodeOf(err) != banger.NotFound || strings.Contains(err.Error(), "damaged") {
			m.Log.Warn("cannot fork a template", "template", b.spec.Key.ID(), "err", err)
		}
		return
	}
	b.fork = fork
	b.launch.Restore = &shim.Restore{
		Template: fork.ID, State: fork.State(), Token: fork.Token, Memory: fork.Memory, DiskBytes: fork.Key.DiskBytes,
	}
}

func (b *begin) close() {
	if b.fork != nil {
		_ = b.fork.Close()
	}
}

// lostFork says whether err comes of a template that was removed since it was opened,
// and has the start be a cold boot then.
func (b *begin) lostFork(err error) bool {
	if b.fork == nil || !errors.Is(err, fs.ErrNotExist) || exists(b.fork.Disk()) {
		return false
	}
	b.close()
	b.fork, b.launch.Restore = nil, nil
	return true
}

// follow sees whether a start that could be a fork became one, and has a
// template made where it did not.
func (m *Manager) follow(l *live, b begin) {
	if !b.fresh {
		return
	}
	m.goes(func() {
		_, _ = l.await(m.ctx, func(s shim.Status) bool { return !s.ReadyAt.IsZero() || s.State == shim.Ended })
		status, _, _ := l.seen() // also of one that was gone as soon as it was ready
		if status == nil || status.ReadyAt.IsZero() || status.Template != "" {
			return
		}
		if status.NotRestored != "" {
			m.Log.Warn("a template is of no use", "vm", l.id, "template", b.fork.ID, "why", status.NotRestored)
			if err := m.Templates.Remove(b.fork.ID); err != nil {
				m.Log.Error("cannot remove a template", "template", b.fork.ID, "err", err)
			}
		}
		m.Templates.Want(b.spec)
	})
}

// templateOf describes the template that a start can be forked from. It reads
// no file: digests are known. Without them, or with a VMM that cannot restore,
// it is empty.
func templateOf(image Image, kernel banger.Kernel, initrd string, init string, chosen Machine, launch shim.Launch) template.Spec {
	info, err := os.Stat(chosen.Binary)
	if err != nil || image.Digest == "" || kernel.Digest == "" || initrd == "" || !chosen.Features.Snapshots {
		return template.Spec{}
	}
	machine := launch.Machine
	machine.Dir = ""
	machine.Disks = slices.DeleteFunc(slices.Clone(machine.Disks), func(d vmm.Disk) bool { return !d.ReadOnly })
	return template.Spec{
		Key: template.Key{
			Image: image.Digest, Kernel: kernel.Digest, Initramfs: initrd, Cmdline: machine.Cmdline, Init: init,
			VCPU: machine.VCPU, MemoryMiB: machine.MemoryMiB, Driver: chosen.Driver, Accel: machine.Accel,
			VMM: template.File{Path: chosen.Binary, Size: info.Size(), ModTime: info.ModTime().UTC()},
			CPU: hostCPU(), DiskBytes: template.DiskFor(launch.Setup.DiskBytes),
		},
		Machine: machine,
		Setup: guestwire.Setup{
			Image: launch.Setup.Image, Env: launch.Setup.Env, WorkDir: launch.Setup.WorkDir, Network: launch.Network.Place(),
		},
	}
}

// hostCPU is the model of the host's processors, which what a guest found out
// at its boot depends on.
var hostCPU = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
})

// stopwatch notes the phases of a start.
type stopwatch struct {
	last   time.Time
	phases []banger.Phase
}

func newStopwatch() *stopwatch { return &stopwatch{last: time.Now()} }

func (s *stopwatch) mark(name string) {
	now := time.Now()
	s.phases = append(s.phases, banger.Phase{Name: name, Millis: float64(now.Sub(s.last)) / float64(time.Millisecond)})
	s.last = now
}
