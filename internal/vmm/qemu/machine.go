package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// drain is how long output that a dead QEMU left in a socket may take to read.
const drain = 500 * time.Millisecond

// machine is one QEMU process. It implements vmm.Machine.
type machine struct {
	cfg     vmm.Config
	base    *os.File // the memory it was restored from, or nil
	process *child.Child
	monitor *monitor
	agent   *agentConn
	cable   *vmm.Cable
	devices deviceFile
	up      func()        // of the caller's IO, or nil
	halted  func()        // of the caller's IO, or nil
	resumed chan struct{} // closed when the vCPUs run for the first time
	done    chan struct{}
	exit    vmm.Exit // valid after done

	saving sync.Mutex // held by Save

	disks  sync.Mutex     // held by GrowDisk and FreezeDisk
	tops   map[string]top // of the disks, by serial
	frozen []int          // sets of descriptors of files that were frozen and could still be written

	mu       sync.Mutex
	shutdown string    // reason of the last SHUTDOWN event
	full     bool      // a disk could not be written, and QEMU is about to stop
	signal   os.Signal // the last one sent by Signal
}

// newMachine takes over the near ends of w and follows the process to its end.
func newMachine(cfg vmm.Config, process *child.Child, w *wires, out vmm.IO) *machine {
	m := &machine{
		cfg: cfg, process: process, base: w.base, agent: &agentConn{UnixConn: w.agent.(*net.UnixConn)}, devices: w.devices, tops: w.tops, up: out.Up, halted: out.Halted,
		resumed: make(chan struct{}), done: make(chan struct{}),
	}
	if cfg.NIC != nil {
		m.cable = &vmm.Cable{ReadWriteCloser: w.cable}
	} else {
		w.cable.Close()
	}
	m.monitor = newMonitor(w.monitor, m.note)
	log := newLastLine()
	var pumps sync.WaitGroup
	pumps.Go(func() { pump(out.Console, w.console) })
	pumps.Go(func() { pump(io.MultiWriter(log, discardNil(out.Log)), w.log) })
	go func() {
		<-process.Done()
		// A reader that is behind gets what is in the sockets, not more.
		w.console.SetReadDeadline(time.Now().Add(drain))
		w.log.SetReadDeadline(time.Now().Add(drain))
		pumps.Wait()
		<-m.monitor.closed
		m.exit = m.ending(withoutProgram(log.String()))
		m.devices.close()
		if m.base != nil {
			m.base.Close()
		}
		close(m.done)
	}()
	return m
}

// pump copies everything. A writer that fails loses what follows and does not
// stall the guest.
func pump(to io.Writer, from io.ReadCloser) {
	defer from.Close()
	if _, err := io.Copy(discardNil(to), from); err != nil {
		io.Copy(io.Discard, from)
	}
}

func discardNil(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (m *machine) Agent() net.Conn       { return m.agent }
func (m *machine) Cable() *vmm.Cable     { return m.cable }
func (m *machine) PID() int              { return m.process.PID() }
func (m *machine) Isolation() []string   { return m.process.InForce() }
func (m *machine) Done() <-chan struct{} { return m.done }
func (m *machine) Exit() vmm.Exit        { return m.exit }

func (m *machine) Pause(ctx context.Context) error { return m.command(ctx, "stop", nil) }

// Resume implements vmm.Machine.
func (m *machine) Resume(ctx context.Context) error {
	if err := m.command(ctx, "cont", nil); err != nil {
		return err
	}
	m.disks.Lock()
	defer m.disks.Unlock()
	return m.closeFrozen(ctx)
}

// GrowDisk implements vmm.Machine. QEMU resizes the file too, to the size it
// already has, and tells the guest.
func (m *machine) GrowDisk(ctx context.Context, serial string, size int64) error {
	m.disks.Lock()
	defer m.disks.Unlock()
	disk, err := m.top(serial)
	if err != nil {
		return err
	}
	sizes, err := m.diskSizes(ctx)
	if err != nil {
		return err
	}
	if present := sizes[node(serial, disk.level)]; size < present {
		return banger.Errorf(banger.BadRequest, "cannot shrink the disk %s from %s to %s",
			serial, banger.FormatSize(present), banger.FormatSize(size))
	}
	return m.command(ctx, "block_resize", object{"node-name": node(serial, disk.level), "size": size})
}

// diskSizes are the sizes of all nodes as QEMU has them: a raw file may be larger
// by now.
func (m *machine) diskSizes(ctx context.Context) (map[string]int64, error) {
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size int64 `json:"virtual-size"`
		} `json:"image"`
	}
	if err := m.query(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, n := range nodes {
		sizes[n.Name] = n.Image.Size
	}
	return sizes, nil
}

func (m *machine) command(ctx context.Context, name string, args any) error {
	return m.query(ctx, name, args, nil)
}

func (m *machine) query(ctx context.Context, name string, args, result any) error {
	return m.explain(name, m.monitor.execute(ctx, name, args, result))
}

// explain turns what became of a command into what callers understand.
func (m *machine) explain(name string, err error) error {
	switch {
	case errors.Is(err, errMonitorClosed):
		return banger.Errorf(banger.NotRunning, "the machine has ended")
	case errors.Is(err, errTooLong):
		return err
	}
	return banger.Wrap(err, "QEMU refused %s", name)
}

// Signal implements vmm.Machine.
func (m *machine) Signal(sig os.Signal) error {
	m.mu.Lock()
	m.signal = sig
	m.mu.Unlock()
	return m.process.Signal(sig)
}
