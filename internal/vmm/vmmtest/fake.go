package vmmtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// Fake is a vmm.Driver whose machines are ordinary processes: Config.Binary
// run as "BINARY serve", with the agent's stream as descriptor 3, its network
// card, if it has one, as descriptor 4, and its output as the console. It boots in milliseconds and shares the host's files, so it
// serves where what a guest is made of does not matter.
//
// The process gets user, pid, mount, ipc and uts namespaces of its own. They
// are no luxury: a guest's agent signals all processes, remounts the root and
// powers off, and must not do that to the host. Where the host forbids them
// Boot fails.
type Fake struct{}

// Statuses by which the process says what a guest would do.
const (
	statusPoweroff = 0
	statusReset    = 10
)

// fakeNamespaces hold what the process must not reach.
const fakeNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// outputDrain is how long the console may take to read after the end.
const outputDrain = 500 * time.Millisecond

// Name is "fake".
func (Fake) Name() string { return "fake" }

// Features of a process.
func (Fake) Features() vmm.Features {
	return vmm.Features{Pause: true, Accels: []vmm.Accel{vmm.KVM, vmm.TCG}}
}

// Boot implements vmm.Driver.
func (Fake) Boot(ctx context.Context, cfg vmm.Config, out vmm.IO) (vmm.Machine, error) {
	m, err := startFake(ctx, cfg, out)
	if err != nil {
		return nil, banger.Wrap(err, "cannot boot the machine")
	}
	return m, nil
}

// Restore is not among the features.
func (Fake) Restore(context.Context, vmm.Config, vmm.Source, vmm.IO) (vmm.Machine, error) {
	return nil, banger.Errorf(banger.BadRequest, "cannot restore a fake machine")
}

func startFake(ctx context.Context, cfg vmm.Config, out vmm.IO) (*process, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	if !child.CanIsolate(fakeNamespaces) {
		return nil, banger.Errorf(banger.Unavailable, "this host does not let us make user namespaces").
			Hint("sysctl user.max_user_namespaces")
	}
	agent, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	console, farConsole, err := os.Pipe()
	if err != nil {
		agent.Close()
		return nil, err
	}
	defer farConsole.Close()
	files := []*os.File{nil, farConsole, farConsole, far}
	cable, farCable, err := fakeCable(cfg)
	if err != nil {
		agent.Close()
		console.Close()
		return nil, err
	}
	if cable != nil {
		defer farCable.Close()
		files = append(files, farCable)
	}
	c, err := child.Start(child.Spec{
		Path:       cfg.Binary,
		Args:       []string{"serve"},
		Dir:        cfg.Dir,
		Env:        []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"},
		Files:      files,
		Namespaces: fakeNamespaces,
		Root:       true, // as an agent is used to
	})
	if err != nil {
		agent.Close()
		console.Close()
		if cable != nil {
			cable.Close()
		}
		return nil, banger.Errorf(banger.Unavailable, "cannot run %s: %w", cfg.Binary, err)
	}
	if out.Up != nil {
		out.Up()
	}
	p := newProcess(c, agent, console, out.Console)
	p.cable = cable
	return p, nil
}

// fakeCable is a pair of sockets on which each packet is a frame. The process has
// its end as descriptor 4.
func fakeCable(cfg vmm.Config) (*vmm.Cable, *os.File, error) {
	if cfg.NIC == nil {
		return nil, nil, nil
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	return &vmm.Cable{ReadWriteCloser: near, Packets: true}, far, nil
}

func socketPair(kind int) (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "near")
	defer file.Close() // FileConn has its own
	far = os.NewFile(uintptr(fds[1]), "far")
	if near, err = net.FileConn(file); err != nil {
		far.Close()
	}
	return near, far, err
}

// process is one fake machine. It implements vmm.Machine.
type process struct {
	child *child.Child
	agent net.Conn
	cable *vmm.Cable
	done  chan struct{}
	exit  vmm.Exit // valid after done

	mu     sync.Mutex
	signal syscall.Signal // that ended it, if Signal did
}

func newProcess(c *child.Child, agent net.Conn, from *os.File, console io.Writer) *process {
	p := &process{child: c, agent: agent, done: make(chan struct{})}
	if console == nil {
		console = io.Discard
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer from.Close()
		io.Copy(console, from)
	}()
	go func() {
		status := c.Wait()
		from.SetReadDeadline(time.Now().Add(outputDrain))
		<-copied
		p.exit = p.ending(status)
		close(p.done)
	}()
	return p
}

func (p *process) Agent() net.Conn       { return p.agent }
func (p *process) Cable() *vmm.Cable     { return p.cable }
func (p *process) PID() int              { return p.child.PID() }
func (p *process) Done() <-chan struct{} { return p.done }
func (p *process) Exit() vmm.Exit        { return p.exit }

// Isolation is nothing to rely on.
func (p *process) Isolation() []string { return nil }

func (p *process) Pause(context.Context) error  { return p.toGroup(unix.SIGSTOP) }
func (p *process) Resume(context.Context) error { return p.toGroup(unix.SIGCONT) }

// toGroup signals the agent and what it started in its own process group. The
// group cannot be another's as long as its leader was not reaped.
func (p *process) toGroup(sig syscall.Signal) error {
	if err := p.child.Signal(sig); err != nil {
		return err
	}
	unix.Kill(-p.PID(), sig)
	return nil
}

// Save is not among the features.
func (p *process) Save(context.Context, vmm.Saved, func() error) error {
	if err := p.child.Signal(syscall.Signal(0)); err != nil {
		return err
	}
	return banger.Errorf(banger.BadRequest, "cannot save a fake machine")
}

// GrowDisk is not among the features.
func (p *process) GrowDisk(context.Context, string, int64) error {
	if err := p.child.Signal(syscall.Signal(0)); err != nil {
		return err
	}
	return banger.Errorf(banger.BadRequest, "cannot grow the disk of a fake machine")
}

// FreezeDisk is not among the features.
func (p *process) FreezeDisk(context.Context, string, string) error {
	if err := p.child.Signal(syscall.Signal(0)); err != nil {
		return err
	}
	return banger.Errorf(banger.BadRequest, "cannot freeze the disk of a fake machine")
}

// Signal implements vmm.Machine. The first process of a pid namespace only
// obeys KILL and STOP from outside, so what ends a VMM becomes a KILL here.
func (p *process) Signal(sig os.Signal) error {
	s, _ := sig.(syscall.Signal)
	if s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGHUP {
		p.mu.Lock()
		p.signal = s
		p.mu.Unlock()
		sig = syscall.SIGKILL
	}
	return p.child.Signal(sig)
}

func (p *process) ending(status syscall.WaitStatus) vmm.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status.Signaled() && p.signal != 0:
		return vmm.Exit{Reason: vmm.Killed, Signal: unix.SignalName(p.signal)}
	// What reboot(2) does to the first process of a pid namespace.
	case status.Signaled() && status.Signal() == syscall.SIGINT:
		return vmm.Exit{Reason: vmm.Poweroff}
	case status.Signaled() && status.Signal() == syscall.SIGHUP:
		return vmm.Exit{Reason: vmm.Reset}
	case status.Signaled():
		return vmm.Exit{Reason: vmm.Killed, Signal: unix.SignalName(status.Signal())}
	case status.ExitStatus() == statusPoweroff:
		return vmm.Exit{Reason: vmm.Poweroff}
	case status.ExitStatus() == statusReset:
		return vmm.Exit{Reason: vmm.Reset}
	}
	return vmm.Exit{Reason: vmm.Crashed, Status: status.ExitStatus()}
}
