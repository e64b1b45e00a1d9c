package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// State is what KVM is worth on a host.
type State string

// The states of KVM.
const (
	Usable       State = "usable"        // an ordinary kernel ran through
	NoDevice     State = "absent"        // no /dev/kvm, or nothing behind it
	NoPermission State = "no permission" // this user may not open it
	Unusable     State = "unusable"      // present, and an ordinary kernel does not run
)

// Verdict is the result of a trial of KVM.
type Verdict struct {
	State State     `json:"state"`
	Why   string    `json:"why,omitempty"` // for people, unless usable
	At    time.Time `json:"at,omitzero"`

	// Until is when the verdict has to be found anew, where that the host was busy may be all
	// there is to it.
	Until time.Time `json:"until,omitzero"`
}

// Probe says what to try KVM with. A verdict holds for one QEMU and one kernel
// during one boot of the host, and is kept in Cache.
type Probe struct {
	Binary string // QEMU
	Kernel string // vmlinux
	Cache  string // JSON file; empty to keep nothing
}

// Limits of the trial. The kernel prints from its first milliseconds on, so
// silence means that it spins, or that the host is very busy, for which nobody
// should go without KVM until the next boot: in a nested host that had a tenth of
// a core, a healthy kernel was silent for more than 3 s. It has more time as long
// as it speaks (there some 10 s, and with even less of a core more than a minute).
const (
	silenceLimit = 10 * time.Second
	trialLimit   = 5 * time.Minute
)

// trialLevel has the kernel print notices and what is worse. With everything it
// prints a nested trial takes four times as long: 21,000 characters, each of which
// leaves the guest.
const trialLevel = "loglevel=6"

const kvmDevice = "/dev/kvm"

// ProbeKVM finds out whether KVM runs an ordinary kernel here. That a device
// exists says little: some nested hosts show one under which QEMU aborts or an
// ordinary kernel spins for ever. So it boots the kernel without a root file
// system, which is to print, panic and reset. An error means that there was no
// trial, and is not kept.
func ProbeKVM(ctx context.Context, p Probe) (Verdict, error) {
	if v, known := p.Known(); known {
		return v, nil
	}
	v, err := p.try(ctx, vmm.KVM, silenceLimit)
	if err != nil {
		return Verdict{}, banger.Wrap(err, "cannot try KVM")
	}
	p.keep(v)
	return v, nil
}

// Known gives the verdict where it takes no trial: without a device that can
// be opened, or from the cache. It changes nothing.
func (p Probe) Known() (Verdict, bool) {
	if v, plain := judgeDevice(kvmDevice); plain {
		return v, true
	}
	return p.recall()
}

// judgeDevice gives a verdict if the device cannot be opened.
func judgeDevice(path string) (Verdict, bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return Verdict{}, false
	case errors.Is(err, fs.ErrPermission):
		return Verdict{State: NoPermission, Why: err.Error(), At: time.Now()}, true
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return Verdict{State: NoDevice, Why: err.Error(), At: time.Now()}, true
	}
	return Verdict{State: Unusable, Why: err.Error(), At: time.Now()}, true
}

// try boots the kernel under accel and judges by its console and its end.
func (p Probe) try(ctx context.Context, accel vmm.Accel, silence time.Duration) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	console, began := newHeartbeat(), time.Now()
	m, err := boot(ctx, vmm.Config{
		Dir: "/", Binary: p.Binary, Kernel: p.Kernel, Accel: accel, VCPU: 1, MemoryMiB: 256,
		Cmdline: "earlyprintk=serial,ttyS0,115200 " + trialLevel,
	}, Driver{}, vmm.IO{Console: console})
	switch {
	case banger.CodeOf(err) == banger.Unavailable:
		return unusable("QEMU gives up: %v", err), nil
	case err != nil:
		return Verdict{}, err
	}
	defer func() {
		m.Signal(os.Kill)
		<-m.Done()
		m.Agent().Close()
	}()
	for {
		select {
		case <-m.Done():
			return judgeEnd(m.Exit(), console.panicked()), nil
		case <-console.beat:
		case <-time.After(silence):
			return unusable("a kernel boots no further than this within %v: %s", silence, console.last()).unlessStarved(m.PID(), began), nil
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return unusable("a kernel has not booted after %v", trialLimit).unlessStarved(m.PID(), began), nil
			}
			return Verdict{}, banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
		}
	}
}

// judgeEnd is the verdict on a kernel that ended: it had to find out that it
// has no root.
func judgeEnd(exit vmm.Exit, panicked bool) Verdict {
	switch {
	case exit.Reason == vmm.Reset && panicked:
		return Verdict{State: Usable, At: time.Now()}
	case exit.Reason == vmm.Reset:
		return unusable("a kernel resets before it is up")
	}
	return unusable("QEMU gives up: %s %s", exit.Signal, exit.Message)
}

func unusable(format string, args ...any) Verdict {
	return Verdict{State: Unusable, Why: fmt.Sprintf(format, args...), At: time.Now()}
}

// rootPanic is the last thing a kernel without a root file system says.
const rootPanic = "VFS: Unable to mount root fs"

// heartbeat is a console that tells of each write.
type heartbeat struct {
	beat chan struct{}
	mu   sync.Mutex
	text []byte
}

func newHeartbeat() *heartbeat { return &heartbeat{beat: make(chan struct{}, 1)} }

func (h *heartbeat) Write(p []byte) (int, error) {
	h.mu.Lock()
	h.text = append(h.text, p...)
	h.mu.Unlock()
	select {
	case h.beat <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (h *heartbeat) panicked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Contains(h.text, []byte(rootPanic))
}

// last is the last line with text, quoted.
func (h *heartbeat) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.TrimSpace(string(h.text))
	line := text[strings.LastIndexByte(text, '\n')+1:]
	if line == "" {
		return "no output"
	}
	return fmt.Sprintf("%.120q", line)
}
