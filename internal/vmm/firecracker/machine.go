package firecracker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/tether"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// drain is how long output that a dead Firecracker left may take to read.
const drain = 500 * time.Millisecond

// machine is one Firecracker process. It implements vmm.Machine.
type machine struct {
	cfg      vmm.Config
	version  string // of Firecracker
	process  *child.Child
	confined bool // by Landlock, as the process said that made the card
	home     *home
	api      client
	wires    *wires

	link  *tether.Stream // to the agent
	agent net.Conn       // the caller's end of it
	plug  *net.UnixConn  // on which the cable comes, or nil
	cable *cable         // or nil

	up   chan struct{} // closed when the guest runs
	done chan struct{}
	exit vmm.Exit // valid after done

	saving sync.Mutex // held by Save

	disks sync.Mutex       // held by GrowDisk
	sizes map[string]int64 // of the disks, by serial

	turning   sync.Mutex // held by Pause and Resume
	announced bool       // the guest will hear of a reset of its vsock; of use while paused

	mu     sync.Mutex
	off    bool      // the guest is halted for good
	signal os.Signal // the last one sent by Signal
}

// newMachine takes over what belongs to a process, but only if it succeeds, and follows the
// process to its end.
func newMachine(cfg vmm.Config, process *child.Child, h *home, w *wires, plug *net.UnixConn, out vmm.IO) (*machine, error) {
	agent, far, err := streamPair()
	if err != nil {
		return nil, err
	}
	m := &machine{
		cfg: cfg, process: process, home: h, api: newClient(h.dialAPI), wires: w, sizes: w.sizes,
		link: tether.NewHost(), agent: agent, plug: plug,
		up: make(chan struct{}), done: make(chan struct{}),
	}
	if plug != nil {
		m.cable = newCable()
	}
	var serving, pumps sync.WaitGroup
	serving.Go(m.keepLink)
	stream := m.joinAgent(far)
	var log vmm.LastLine
	pumps.Go(func() { pump(io.MultiWriter(discardNil(out.Console), &watcher{halted: m.powerOff}), w.console) })
	pumps.Go(func() { pump(io.MultiWriter(&log, discardNil(out.Log)), w.log) })
	go func() {
		<-process.Done()
		// A reader that is behind gets what is in the pipes, not more.
		_ = w.console.SetReadDeadline(time.Now().Add(drain))
		_ = w.log.SetReadDeadline(time.Now().Add(drain))
		pumps.Wait()
		serving.Wait()
		_ = m.link.Close()
		stream()
		if m.cable != nil {
			_ = m.cable.Close()
		}
		m.api.close()
		w.closeNear()
		_ = h.close()
		m.exit = m.ending(withoutOrigin(log.String()))
		close(m.done)
	}()
	return m, nil
}

// pump copies everything. A writer that fails loses what follows and does not stall the
// guest.
func pump(to io.Writer, from io.ReadCloser) {
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		_, _ = io.Copy(io.Discard, from)
	}
}

func discardNil(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (m *machine) Agent() net.Conn       { return m.agent }
func (m *machine) PID() int              { return m.process.PID() }
func (m *machine) Done() <-chan struct{} { return m.done }
func (m *machine) Exit() vmm.Exit        { return m.exit }

// Isolation implements vmm.Machine.
func (m *machine) Isolation() []string {
	layers := m.process.InForce()
	if m.confined && layers != nil {
		layers = append(layers, child.Landlock)
	}
	return layers
}

// Cable implements vmm.Machine.
func (m *machine) Cable() *vmm.Cable {
	if m.cable == nil {
		return nil
	}
	return &vmm.Cable{ReadWriteCloser: m.cable, Packets: true}
}

// running says whether the vCPUs run.
func (m *machine) running(ctx context.Context) (bool, error) {
	var who instance
	err := m.call(ctx, request{"GET", "/", nil}, &who)
	return who.State == "Running", err
}

// GrowDisk implements vmm.Machine. Firecracker opens the file anew, and has the guest look.
func (m *machine) GrowDisk(ctx context.Context, serial string, size int64) error {
	m.disks.Lock()
	defer m.disks.Unlock()
	if _, err := m.running(ctx); err != nil {
		return err
	}
	present, found := m.sizes[serial]
	if !found {
		return banger.Errorf(banger.NotFound, "the machine has no disk %q", serial)
	}
	if size < present {
		return banger.Errorf(banger.BadRequest, "cannot shrink the disk %s from %s to %s",
			serial, banger.FormatSize(present), banger.FormatSize(size))
	}
	for i, d := range m.cfg.Disks {
		if d.Serial == serial {
			err := m.call(ctx, request{"PATCH", "/drives/" + driveID(i), driveUpdate{driveID(i), diskPath(i)}}, nil)
			if err != nil {
				return err
			}
		}
	}
	m.sizes[serial] = size
	return nil
}

// FreezeDisk is not among the features.
func (m *machine) FreezeDisk(ctx context.Context, serial, _ string) error {
	if _, err := m.running(ctx); err != nil {
		return err
	}
	return banger.Errorf(banger.BadRequest, "cannot freeze the disk %s: Firecracker knows nothing of layers", serial)
}

// call turns what became of a call into what callers understand.
func (m *machine) call(ctx context.Context, r request, answer any) error {
	err := m.api.ask(ctx, r, answer)
	if errors.Is(err, errNoAnswer) && m.hasEnded(ctx) {
		return banger.Errorf(banger.NotRunning, "the machine has ended")
	}
	return err
}

// endsSoon is how long a Firecracker that answers nothing may take to have ended.
const endsSoon = 5 * time.Second

// hasEnded says whether a Firecracker has that gave a call no answer: it is about to, and may
// take a while, or it answers another one.
func (m *machine) hasEnded(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, endsSoon)
	defer cancel()
	answers := make(chan struct{}, 1)
	go func() {
		if !errors.Is(m.api.do(ctx, request{"GET", "/", nil}), errNoAnswer) && ctx.Err() == nil {
			answers <- struct{}{}
		}
	}()
	select {
	case <-m.process.Done():
		return true
	case <-answers:
	case <-ctx.Done():
	}
	return false
}

// Signal implements vmm.Machine.
func (m *machine) Signal(sig os.Signal) error {
	m.mu.Lock()
	m.signal = sig
	m.mu.Unlock()
	return m.process.Signal(sig)
}
