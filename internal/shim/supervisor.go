package shim

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/paths"
	"banger/internal/ports"
	"banger/internal/vmm"
)

// supervisor is a shim at work.
type supervisor struct {
	dir        paths.VM
	driver     vmm.Driver
	layers     Layers
	id         Identity
	log        *slog.Logger
	lock       *os.File
	listener   *net.UnixListener
	console    *consoleLog
	ports      *ports.Ports // of the guest on the host, nil where there are none
	prefix     *os.File     // holds the loopback prefix they are of
	started    time.Time
	margin     time.Duration  // see stopMargin
	grace      grace          // vmm.Grace
	room       func() bool    // whether there is some for what the guest writes
	steps      steps          // of the host's clock
	clockDoubt chan struct{}  // has the guest's clock looked at again
	memory     *os.File       // of the machine to restore, or nil
	work       sync.WaitGroup // goroutines of the VM's life; not those of clients
	clearing   sync.WaitGroup // see clear
	over       chan struct{}  // closed when the VM has ended and exit is set
	network    Wire           // of the guest, nil where the VM has none
	turn       turn           // of pause, resume, grow, save, suspend, reboot
	keeping    sync.Mutex     // held while launch.json is written
	reaching   sync.Mutex     // held while what the guest may reach changes
	proxies    []string       // rules beside those of its Reach, with reaching held

	serving sync.WaitGroup // the accepting goroutine and one per client

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced at each change
	launch      Launch        // Ephemeral may change
	boot        *boot         // the present one
	boots       int
	failedBoots int    // in a row: of guests that reset before they were up
	unfit       string // why the machine that was saved was not taken up
	paused      bool
	full        bool // the machine stands still until there is room for what it writes
	looking     bool // for that room
	stopping    bool
	asked       Reason // why we end the VM, or ""
	interrupt   func() // ends the save under way, or nil
	owners      int
	streams     int // to the guest
	answering   int // streams of clients being handled
	touched     time.Time
	traffic     uint64 // of its network when that was last looked at
	unlisted    error  // why the guest's listeners are not known
	exit        *Exit
	clients     map[*outbox]bool
	patience    time.Duration // see clientPatience
}

// open takes the VM in dir and boots it. What fails leaves nothing behind.
func open(ctx context.Context, dir paths.VM, opts Options, log *slog.Logger) (_ *supervisor, err error) {
	now := time.Now()
	s := &supervisor{
		dir: dir, log: log, layers: opts.Layers, memory: opts.memory, started: now, touched: now, margin: stopMargin, grace: vmm.Grace,
		turn: newTurn(), over: make(chan struct{}), changed: make(chan struct{}), clockDoubt: make(chan struct{}, 1), clients: make(map[*outbox]bool), patience: clientPatience,
	}
	if s.room = opts.room; s.room == nil {
		s.room = func() bool { return hasRoom(string(dir)) }
	}
	if s.steps = opts.steps; s.steps == nil {
		s.steps = hostSteps
	}
	if s.id, err = ownIdentity(opts.Build); err != nil {
		return nil, err
	}
	if s.lock, err = takeLock(dir, s.id); err != nil {
		return nil, err
	}
	if err = s.begin(ctx, opts); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *supervisor) begin(ctx context.Context, opts Options) (err error) {
	if s.launch, err = ReadLaunch(s.dir); err != nil {
		return err
	}
	if s.driver, err = opts.Driver(s.launch.Driver); err != nil {
		return err
	}
	if err = os.Remove(s.dir.Exit()); err != nil && !os.IsNotExist(err) {
		return fileError(err, "cannot remove the record of the last run")
	}
	if err = s.sweep(); err != nil {
		return fileError(err, "cannot remove what the last run left")
	}
	if s.console, err = openConsoleLog(s.dir, s.launch.ConsoleLimit); err != nil {
		return fileError(err, "cannot open the console log")
	}
	if s.listener, err = listen(s.dir); err != nil {
		return fileError(err, "cannot listen on the control socket")
	}
	if s.launch.Network != nil {
		if err = s.openNetwork(opts.Network); err != nil {
			return err
		}
	}
	if err = s.openPorts(); err != nil {
		return err
	}
	return s.bootFirst(ctx)
}

// release gives up what makes this process the VM's shim. The next one may
// start at once.
func (s *supervisor) release() {
	s.clearing.Wait()
	if s.listener != nil {
		_ = s.listener.Close()
		_ = os.Remove(s.dir.ShimSocket())
	}
	if s.console != nil {
		s.console.close()
	}
	s.closePorts()
	if s.network != nil {
		_ = s.network.Close()
	}
	_ = s.lock.Close()
}

// run serves clients until the VM has ended. Ending ctx stops the VM.
func (s *supervisor) run(ctx context.Context) {
	s.serving.Go(s.acceptClients)
	defer context.AfterFunc(ctx, func() { _ = s.beginStop(defaultStop, IfIdle{}) })()
	exit := s.supervise()
	s.log.Info("the VM ended", "reason", exit.Reason, "message", exit.Message)
	s.keepNetwork() // first: whoever reads how it ended may start it again
	if err := writeJSON(s.dir.Exit(), exit); err != nil {
		s.log.Error("cannot record how the VM ended", "error", err)
	}
	s.release()
	s.update(func() { s.exit = &exit })
	close(s.over)
	s.work.Wait()
	s.dismissClients()
}

// supervise follows the VMM through all its boots.
func (s *supervisor) supervise() Exit {
	for {
		b := s.present()
		<-b.machine.Done()
		b.end()
		exit, again := s.judge(b)
		if !again {
			return exit
		}
		s.log.Info("the guest rebooted")
		if err := s.bootAgain(); err != nil {
			exit.Reason, exit.Message = ReasonCrashed, "the guest rebooted and could not be booted again: "+err.Error()
			return exit
		}
	}
}

// bootAgain boots a guest that rebooted, once nobody works on its disk: a save
// under way, which its machine's end makes fail, may be about to add a layer.
func (s *supervisor) bootAgain() error {
	if err := s.turn.take(context.Background()); err != nil {
		return err
	}
	defer s.turn.done()
	return s.bootVMM(context.Background())
}

func (s *supervisor) present() *boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boot
}

// update changes what Status tells and wakes whoever waits for that.
func (s *supervisor) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.wake()
}

// wake tells of a change, with mu held.
func (s *supervisor) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// status is a snapshot, and a channel that is closed when it is out of date.
func (s *supervisor) status() (Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noticeTraffic()
	st := Status{
		State:       s.state(),
		Problem:     s.boot.problem,
		Ephemeral:   s.launch.Ephemeral,
		Owners:      s.owners,
		Shim:        s.id,
		VMMPID:      s.boot.machine.PID(),
		StartedAt:   s.started,
		ReadyAt:     s.boot.readyAt,
		LastTouched: s.touched,
		IdleMillis:  time.Since(s.touched).Milliseconds(),
		Boots:       s.boots,
		Guest:       s.boot.guest,
		Isolation:   s.boot.machine.Isolation(),
		Address:     s.hostAddress(),
		Streams:     s.streams,
		Restored:    s.boot.restored,
		Template:    s.boot.template,
		NotRestored: s.unfit,
		Reach:       s.reach(),
		Exit:        s.exit,
	}
	if s.full {
		st.Problem = s.standstill()
	}
	if s.boot.trace.ready {
		st.Trace = s.boot.trace.phases
	}
	if s.exit != nil {
		st.VMMPID, st.Problem = 0, ""
	}
	return st, s.changed
}

// state is derived, with mu held.
func (s *supervisor) state() State {
	switch {
	case s.exit != nil:
		return Ended
	case s.asked != "":
		return Stopping
	case s.paused || s.full:
		return Paused
	case s.boot.readyAt.IsZero():
		return Booting
	}
	return Running
}

// live refuses what cannot be done to a VM that is ending.
func (s *supervisor) live() (*boot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit != nil || s.asked != "" {
		return nil, s.notRunning()
	}
	return s.boot, nil
}

// notRunning says in what way the VM is not running, with mu held.
func (s *supervisor) notRunning() error {
	if s.exit != nil {
		return banger.Errorf(banger.NotRunning, "%s is not running: %s", s.launch.Name, s.exit.Message).
			Hint("banger vm start %s", s.launch.Name)
	}
	if s.asked == ReasonSuspended {
		return banger.Errorf(banger.NotRunning, "%s is being suspended", s.launch.Name)
	}
	return banger.Errorf(banger.NotRunning, "%s is being stopped", s.launch.Name)
}
