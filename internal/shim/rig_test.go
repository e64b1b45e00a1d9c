package shim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vnet"
	"banger/internal/vnet/reach"
)

// scripted is a driver whose machines do what a test says, beside the fake and
// the real one, which do what they must.
type scripted struct {
	dying      time.Duration // how long its machines take to end once they are killed
	vmm.Driver               // for what no test here asks

	agent    func(*guestwire.Stream) // nil: a guest that never comes up
	refuse   error
	restore  func(*scriptedMachine) error                             // nil: it cannot
	save     func(context.Context, *scriptedMachine, vmm.Saved) error // instead of writing the files
	pause    func(context.Context) error                              // nil: at once
	resume   error
	boots    chan *scriptedMachine
	cable    bool          // machines have a network card
	deaf     chan struct{} // closed when agents take nothing in any more; nil: they always do
	stubborn bool          // SIGTERM and the guest's own shutdown do nothing
	room     func() bool   // what the shim is told of its disk
	steps    steps         // of the host's clock
	timeless bool          // agents do not tell their clock
	stuck    time.Duration // how far off guests' clocks are, whatever they are set to
}

type scriptedMachine struct {
	vmm.Machine // for what no test here asks

	driver  *scripted
	console io.Writer
	halted  func() // tells the shim that there is no room
	host    net.Conn
	guest   net.Conn
	once    sync.Once
	done    chan struct{}
	exit    vmm.Exit
	pauses  chan string
	setups  atomic.Int32
	setup   atomic.Pointer[guestwire.Setup] // the last one
	source  vmm.Source                      // it was restored from
	off     atomic.Int64                    // its clock, nanoseconds
	sets    chan time.Time                  // what its clock was set to

	unattended atomic.Pointer[guestwire.Unattended] // nil: its agent cannot tell

	cable *vmm.Cable
	card  net.Conn // the guest's end of it
}

func (d *scripted) Name() string           { return "scripted" }
func (d *scripted) Features() vmm.Features { return vmm.Features{Pause: true} }

func (d *scripted) Boot(_ context.Context, _ vmm.Config, out vmm.IO) (vmm.Machine, error) {
	if d.refuse != nil {
		return nil, d.refuse
	}
	m := d.machine(out)
	if d.agent != nil {
		m.comeUp()
	}
	d.boots <- m
	return m, nil
}

func (d *scripted) Restore(_ context.Context, _ vmm.Config, from vmm.Source, out vmm.IO) (vmm.Machine, error) {
	if d.restore == nil {
		return nil, banger.Errorf(banger.BadRequest, "cannot restore a scripted machine")
	}
	m := d.machine(out)
	m.source = from
	if err := d.restore(m); err != nil {
		return nil, err
	}
	d.boots <- m
	return m, nil
}

func (d *scripted) machine(out vmm.IO) *scriptedMachine {
	m := &scriptedMachine{driver: d, console: out.Console, halted: out.Halted, done: make(chan struct{}), pauses: make(chan string, 16), sets: make(chan time.Time, 16)}
	m.off.Store(int64(d.stuck))
	m.host, m.guest = net.Pipe()
	if d.cable {
		var host net.Conn
		host, m.card = net.Pipe()
		m.cable = &vmm.Cable{ReadWriteCloser: host, Packets: true}
	}
	return m
}

// hearing is the guest's end of the link, until the guest is deaf.
type hearing struct {
	net.Conn
	m *scriptedMachine
}

func (h hearing) Read(p []byte) (int, error) {
	select {
	case <-h.m.driver.deaf:
		<-h.m.done
	default:
	}
	return h.Conn.Read(p)
}

// comeUp starts the agent.
func (m *scriptedMachine) comeUp() {
	go func() {
		_ = guestwire.Serve(hearing{m.guest, m}, true, func(s *guestwire.Stream) {
			var c guestwire.Call
			switch {
			case s.Kind == guestwire.KindSetup:
				setup, _ := guestwire.ParseSetup(s.Body)
				m.setup.Store(&setup)
				m.setups.Add(1)
				result := guestwire.SetupResult{Kernel: "6.1-test"}
				if m.driver.stuck != 0 {
					result.TimeNanos = m.clock()
				}
				s.Finish(result.Append(nil))
			case s.Kind == guestwire.KindClock:
				c, _ := guestwire.ParseClock(s.Body)
				if m.driver.stuck == 0 {
					m.off.Store(c.TimeNanos - time.Now().UnixNano())
				}
				m.sets <- time.Unix(0, c.TimeNanos)
				s.Finish(guestwire.Clock{TimeNanos: m.clock()}.Append(nil))
			case s.Kind == guestwire.KindCall && json.Unmarshal(s.Body, &c) == nil:
				m.call(s, c)
			default:
				m.driver.agent(s)
			}
		})
	}()
}

func (m *scriptedMachine) clock() int64 { return time.Now().UnixNano() + m.off.Load() }

func (m *scriptedMachine) call(s *guestwire.Stream, c guestwire.Call) {
	switch c.Method {
	case guestwire.MethodShutdown:
		s.Finish([]byte("null"))
		if !m.driver.stubborn {
			m.end(vmm.Exit{Reason: vmm.Poweroff})
		}
	case guestwire.MethodUnattended:
		u := m.unattended.Load()
		if u == nil {
			s.Fail("unknown_method", "no such method")
			return
		}
		body, _ := json.Marshal(u)
		s.Finish(body)
	case guestwire.MethodTime:
		if m.driver.timeless {
			s.Fail("unknown_method", "no such method")
			return
		}
		body, _ := json.Marshal(guestwire.Clock{TimeNanos: m.clock()})
		s.Finish(body)
	default:
		s.Finish(c.Params)
	}
}

func (m *scriptedMachine) end(e vmm.Exit) {
	m.once.Do(func() {
		_ = m.guest.Close()
		if m.card != nil {
			_ = m.card.Close()
		}
		m.exit = e
		close(m.done)
	})
}

func (m *scriptedMachine) Agent() net.Conn       { return m.host }
func (m *scriptedMachine) Cable() *vmm.Cable     { return m.cable }
func (m *scriptedMachine) PID() int              { return 1 << 30 } // nobody's
func (m *scriptedMachine) Isolation() []string   { return []string{"a test"} }
func (m *scriptedMachine) Done() <-chan struct{} { return m.done }
func (m *scriptedMachine) Exit() vmm.Exit        { return m.exit }

func (m *scriptedMachine) Pause(ctx context.Context) error {
	m.pauses <- "pause"
	if m.driver.pause != nil {
		return m.driver.pause(ctx)
	}
	return nil
}

func (m *scriptedMachine) Resume(ctx context.Context) error {
	m.pauses <- "resume"
	return cmp.Or(ctx.Err(), m.driver.resume)
}

func (m *scriptedMachine) GrowDisk(_ context.Context, serial string, _ int64) error {
	if serial == "disk" {
		return nil
	}
	return banger.Errorf(banger.NotFound, "no disk %s", serial)
}

func (m *scriptedMachine) FreezeDisk(_ context.Context, serial, _ string) error {
	return banger.Errorf(banger.NotFound, "no disk %s", serial)
}

// Save writes files that are right in form.
func (m *scriptedMachine) Save(ctx context.Context, to vmm.Saved, frozen func() error) error {
	if to.Pausing != nil {
		to.Pausing()
	}
	m.pauses <- "save"
	if m.driver.save != nil {
		if err := m.driver.save(ctx, m, to); err != nil {
			return err
		}
	}
	state, err := vmm.StateOf("scripted", "1", vmm.Config{}).Encode()
	if err == nil && to.Into != nil {
		_, err = to.Into.Write([]byte("memory"))
	} else if err == nil {
		err = os.WriteFile(to.Memory, []byte("memory"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(to.State, state, 0o600)
	}
	if err == nil && frozen != nil {
		err = frozen()
	}
	return err
}

func (m *scriptedMachine) Signal(sig os.Signal) error {
	if m.driver.stubborn && sig != syscall.SIGKILL {
		return nil
	}
	_ = m.guest.Close()
	time.Sleep(m.driver.dying)
	m.end(vmm.Exit{Reason: vmm.Killed, Signal: sig.String()})
	return nil
}

// rig is a shim inside the test process.
type rig struct {
	*Client
	dir     paths.VM
	shim    *supervisor
	machine *scriptedMachine // of the first boot
	driver  *scripted
	ended   chan struct{} // closed when the shim has ended
}

func vmDir(t *testing.T, l Launch) paths.VM {
	t.Helper()
	dir := paths.VM(t.TempDir())
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testLaunch() Launch { return Launch{ID: banger.NewID(), Name: "devbox", Driver: "scripted"} }

func testNetwork(s reach.Site) (Wire, error) { return vnet.OnHost(s) }

var testLayers = Layers{Of: layers.Of, Flatten: layers.Flatten, Take: layers.Take}

func newRig(t *testing.T, d *scripted, l Launch) *rig {
	t.Helper()
	return rigIn(t, vmDir(t, l), d, l)
}

// rigIn is a shim for a VM that may have run before.
func rigIn(t *testing.T, dir paths.VM, d *scripted, l Launch) *rig {
	t.Helper()
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	d.boots = make(chan *scriptedMachine, 8)
	r := &rig{dir: dir, driver: d, ended: make(chan struct{})}
	opts := Options{Build: "test", Driver: func(string) (vmm.Driver, error) { return d, nil }, Network: testNetwork, Layers: testLayers, room: d.room, steps: d.steps}
	if l.Restore != nil {
		opts.memory = l.Restore.Memory
	}
	var err error
	if r.shim, err = open(t.Context(), r.dir, opts, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	r.machine = <-d.boots
	go func() {
		defer close(r.ended)
		r.shim.run(context.Background())
	}()
	if r.Client, err = Dial(t.Context(), r.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.shim.kill(ReasonKilled, syscall.SIGKILL)
		<-r.ended
		_ = r.Close()
	})
	return r
}

// await waits until the status is as wanted.
func (r *rig) await(t *testing.T, wanted func(Status) bool) Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last Status
	err := r.Watch(ctx, func(s Status) {
		if last = s; wanted(s) {
			cancel()
		}
	})
	if !wanted(last) {
		t.Fatalf("the status stayed %+v: %v", last, err)
	}
	return last
}

// awaitStreams waits until so many streams to the guest are open, which is no
// change that watchers are told of.
func (r *rig) awaitStreams(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if s, err := r.Status(t.Context()); err != nil || s.Streams == n {
			return
		}
	}
	t.Fatalf("there never were %d streams", n)
}

func (r *rig) is(state State) func(Status) bool {
	return func(s Status) bool { return s.State == state }
}

// recorded is the exit.json of a shim that has ended.
func (r *rig) recorded(t *testing.T) Exit {
	t.Helper()
	<-r.ended
	e, err := ReadExit(r.dir)
	if err != nil || e == nil {
		t.Fatalf("exit.json: %+v, %v", e, err)
	}
	return *e
}

// echo copies stdin to stdout and ends with status 7, or with 128+n at a
// signal.
func echo(s *guestwire.Stream) {
	go func() {
		if c, ok := s.NextControl(); ok {
			sig, _ := c.Signal()
			s.Finish(guestwire.Exit{Status: 128 + sig}.Append(nil))
		}
	}()
	out := s.Writer(guestwire.Stdout)
	if _, err := io.Copy(out, s.Reader(guestwire.Stdin)); err == nil {
		_ = out.Close()
		s.Finish(guestwire.Exit{Status: 7}.Append(nil))
	}
}

func run(t *testing.T, c *guestwire.Conn, input string) (string, uint8, error) {
	t.Helper()
	s, err := c.Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"cat"}, Stdin: true}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		w := s.Writer(guestwire.Stdin)
		_, _ = io.Copy(w, strings.NewReader(input))
		_ = w.Close()
	}()
	var out bytes.Buffer
	_, _ = io.Copy(&out, s.Reader(guestwire.Stdout))
	body, err := s.Wait(t.Context())
	if err != nil {
		return out.String(), 0, err
	}
	exit, err := guestwire.ParseExit(body)
	return out.String(), exit.Status, err
}
