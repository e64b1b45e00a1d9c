// Package guest is what runs inside a guest: the agent that does what its
// host asks over the wire. As PID 1 it has brought the machine up before (see
// boot); as an ordinary process it stands in for a guest in tests.
//
// It knows the wire and Linux, and nothing of hosts, VMMs or VMs' rows.
package guest

import (
	"fmt"
	"sync"
	"time"

	"banger/internal/guestwire"
)

// agent answers one host.
type agent struct {
	machine machine
	version string
	procs   *reaper

	listeners listeners

	forking  sync.Mutex     // held while limits are those of a child
	commands sync.WaitGroup // streams of commands that are not answered yet
	incoming incoming

	unattended unattended

	mu      sync.Mutex
	env     []string // the image's
	workDir string   // the image's
	user    string   // who runs commands that name nobody; "" is root
	ending  bool     // a shutdown began: nothing new is started
}

// machine is what the agent runs on: a real one, or the host in tests, of
// which it must touch nothing.
type machine interface {
	// lookup finds the user to run a command or own files as, and makes one
	// that is not there with the uid.
	lookup(name string, uid uint32) (user, error)

	// prepare gives a new child its place; the result undoes what is only
	// for the time of the fork.
	prepare(*processAttr) (undo func())

	setClock(nanos int64) error
	setup(guestwire.Setup) (failed []string, err error)
	bootID() string
	program() (string, error) // where the agent's own binary is
	problems() []string
	diskDir() string  // a path on the writable disk
	layers() []string // where what the guest has written is, apart from the image

	// awaitBoot waits until the machine's own init has brought it up, for
	// limit at most, and says whether it has.
	awaitBoot(limit time.Duration) bool
	// askInit has the machine's own init end it; false where the agent is init.
	askInit(timeout time.Duration, reboot bool) bool

	// signalAll signals every process but the agent.
	signalAll(sig int)
	down() error // makes what was written safe
	end(reboot bool)
}

func newAgent(m machine, version string) *agent {
	a := &agent{machine: m, version: version, procs: newReaper()}
	go a.procs.run()
	return a
}

// handle answers one stream. A bug in answering it must not take PID 1 down.
func (a *agent) handle(s *guestwire.Stream) {
	defer func() {
		if r := recover(); r != nil {
			s.Fail("internal", fmt.Sprintf("the guest agent has a bug: %v", r))
		}
	}()
	switch s.Kind {
	case guestwire.KindExec:
		a.exec(s)
	case guestwire.KindCall:
		a.call(s)
	case guestwire.KindSetup:
		a.setupStream(s)
	case guestwire.KindClock:
		a.clockStream(s)
	case guestwire.KindPut:
		a.put(s)
	case guestwire.KindGet:
		a.get(s)
	case guestwire.KindDial:
		dial(s)
	case guestwire.KindListeners:
		a.listeners.tell(s)
	case guestwire.KindListen:
		a.listen(s)
	case guestwire.KindAccept:
		a.accept(s)
	default:
		s.Fail("unknown_method", fmt.Sprintf("the guest agent knows no stream of kind %d", s.Kind))
	}
}

// failure is an error with the code of the API.
type failure struct {
	code string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failf(code, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}
