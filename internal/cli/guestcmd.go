package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
)

// commandFlags are the flags of everything that runs a command in a guest.
type commandFlags struct {
	env     []string
	envFile string
	dir     string
	user    string
	pty     bool
	noPty   bool
	timeout time.Duration
}

func (f *commandFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.env, "env", "e", nil, "set `KEY=VALUE` for the command; KEY alone is taken from your environment")
	flags.StringVar(&f.envFile, "env-file", "", "read variables from `FILE`, one KEY=VALUE a line")
	flags.StringVarP(&f.dir, "workdir", "w", "", "run the command in `DIR`")
	flags.StringVar(&f.user, "user", "", "run as user `NAME` (default root); one the image lacks is created with your uid")
	flags.BoolVarP(&f.pty, "tty", "t", false, "give the command a terminal (the default when stdin and stdout are terminals)")
	flags.BoolVarP(&f.noPty, "no-tty", "T", false, "never give the command a terminal")
	flags.DurationVar(&f.timeout, "timeout", 0, "end the command after this `TIME`, as in 90s or 10m, with status 125")
}

// request is what is asked of the guest agent. stdin says whether the command
// gets our input where it has no pty.
func (f *commandFlags) request(t tty, argv []string, stdin bool) (guestwire.Exec, error) {
	if f.pty && f.noPty {
		return guestwire.Exec{}, badUsage("-t and -T contradict each other")
	}
	if f.timeout < 0 {
		return guestwire.Exec{}, badUsage("bad --timeout %s: it is negative", f.timeout)
	}
	env, err := environment(f.env, f.envFile, os.LookupEnv)
	if err != nil {
		return guestwire.Exec{}, err
	}
	e := guestwire.Exec{
		Argv: argv, Env: env, Dir: f.dir, User: f.user, UID: uint32(os.Getuid()),
		TTY: f.pty || t.in && t.out && !f.noPty,
	}
	e.Stdin = stdin || e.TTY
	if e.TTY {
		e.Rows, e.Cols = terminalSize()
		if term := os.Getenv("TERM"); term != "" {
			e.Env = append([]string{"TERM=" + term}, e.Env...)
		}
	}
	return e, nil
}

// guestCommand is one command in one VM, seen through to its end.
type guestCommand struct {
	v       *voice
	vm      string // its name
	dir     paths.VM
	shim    *shim.Client
	request guestwire.Exec
	timeout time.Duration
	expired atomic.Bool // timeout has passed
	stream  *guestwire.Stream
	began   time.Time // when it was asked for
}

// open asks for the command. The shim holds it until the guest is ready.
func (g *guestCommand) open() (err error) {
	if g.stream == nil {
		g.began = time.Now()
		g.stream, err = g.shim.Conn().Open(guestwire.KindExec, g.request.Append(nil))
	}
	return guestlink.Error(err)
}

// run joins the command to our streams and returns its status as a
// statusError, nil for 0.
func (g *guestCommand) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := g.open()
	if err != nil {
		return ours{g.lost(err)}
	}
	stream := g.stream
	signal.Ignore(syscall.SIGPIPE) // a reader that went away is the command's business
	restore := func() {}
	if g.request.TTY {
		if restore, err = makeRaw(); err != nil {
			stream.Reset()
			return ours{banger.Wrap(err, "cannot take over the terminal")}
		}
		defer restore()
	}
	defer g.forwardSignals(ctx, stream, cancel)()
	defer g.limit(stream, cancel)()

	with := streams{Out: os.Stdout, Err: os.Stderr}
	if g.request.Stdin {
		with.In = os.Stdin
	}
	exit, err := attachUntil(ctx, stream, with)
	restore()
	return g.outcome(ctx, exit, err)
}

func (g *guestCommand) forwardSignals(ctx context.Context, s *guestwire.Stream, cancel context.CancelCauseFunc) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append(endingSignals(), syscall.SIGWINCH)...)
	f := &forwarder{stream: s, pty: g.request.TTY, now: time.Now}
	go f.forward(ctx, signals, cancel)
	return func() { signal.Stop(signals) }
}

// limit ends the command when its time is up: TERM first, and the stream ten
// seconds later.
func (g *guestCommand) limit(s *guestwire.Stream, cancel context.CancelCauseFunc) (stop func()) {
	if g.timeout == 0 {
		return func() {}
	}
	t := time.AfterFunc(g.timeout, func() {
		g.expired.Store(true) // before the command can end by it
		_ = s.Control(guestwire.SignalControl(uint8(syscall.SIGTERM)))
		select {
		case <-s.Done():
		case <-time.After(10 * time.Second):
		}
		cancel(g.timedOut())
	})
	return func() { t.Stop() }
}

func (g *guestCommand) timedOut() error {
	return ours{banger.Errorf(banger.Cancelled, "the command was ended: it ran longer than %s", g.timeout)}
}

// outcome turns how the stream ended into banger's own end.
func (g *guestCommand) outcome(ctx context.Context, exit guestwire.Exit, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if g.expired.Load() {
		return g.timedOut()
	}
	var output errOutput
	switch {
	case errors.As(err, &output):
		return ours{banger.Errorf(banger.CodeOf(err), "cannot write the command's output: %w", output.error)}
	case err != nil:
		return ours{g.lost(err)}
	}
	if exit.Message != "" {
		g.v.say("%s", exit.Message)
	}
	if exit.Status != 0 {
		g.explainNetwork(ctx)
		return statusError(exit.Status)
	}
	return nil
}

// explainLimit bounds a question that a failed command waits for.
const explainLimit = 2 * time.Second

// explainNetwork says what the guest was refused while a command ran that failed.
// It may be another's doing: the network cannot tell. An older shim does not know.
func (g *guestCommand) explainNetwork(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, explainLimit)
	defer cancel()
	if line, err := g.shim.Explain(ctx, g.began); err == nil && line != "" {
		g.v.say("%s", line)
	}
}

// lost explains a stream that ended without a result. The shim writes down
// how the VM ended before it lets go of its clients.
func (g *guestCommand) lost(err error) error {
	if banger.CodeOf(err) != banger.Unavailable {
		return err
	}
	end, readErr := shim.ReadExit(g.dir)
	if readErr != nil || end == nil {
		return banger.Errorf(banger.Unavailable, "the VM %s was lost while the command ran: %w", g.vm, err).
			Hint("banger vm logs %s", g.vm)
	}
	return banger.Errorf(banger.Unavailable, "the VM %s ended while the command ran: %s", g.vm, end.Message).
		Hint("banger vm logs %s", g.vm)
}
