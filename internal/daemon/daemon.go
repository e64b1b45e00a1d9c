// Package daemon is the process that owns one state directory: it composes
// the other rooms, answers the API on a unix socket, and starts by itself
// when a client needs it.
//
// It decides nothing about VMs (see package vm) and holds nothing that a kill
// would lose.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/build"
	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/service"
	"banger/internal/sshkeys"
	"banger/internal/vm"
)

// patience is how long operations may still run once the daemon is to end by
// a signal.
const patience = 10 * time.Second

// Options says whose daemon to run.
type Options struct {
	Dirs    paths.Dirs
	BuildID string // of this executable where empty
	Names   string // where to answer for names of VMs; nowhere where empty
	Self    string // this program, to try what it does; nothing is tried with an empty one

	// vms is another life of VMs, for tests.
	vms func(d *daemon) vm.Service
}

// rows is what a reference to a VM is resolved with.
type rows interface {
	VM(ctx context.Context, id string) (banger.VM, error)
	VMByName(ctx context.Context, name string) (banger.VM, error)
	VMs(ctx context.Context) ([]banger.VM, error)
}

type daemon struct {
	dirs    paths.Dirs
	buildID string
	self    string
	log     *slog.Logger
	quit    func() // marks the daemon as ending and has Run return

	config     func() (config.Config, []config.Warning, error)
	rows       rows
	images     *images
	kernels    *kernel.Store
	claims     claims
	templates  *templates
	loopback   *prefixes
	keys       *sshkeys.Keys
	scopes     *scopes // nil where the daemon is no service of systemd
	vms        vm.Service
	operations *operations
	faults     faults
}

// Run is the daemon: it returns when it was asked to end by a signal, by
// ctx, or over the API, and could not start or serve otherwise. VMs go on.
// Who started it hears through a pipe (see api.Ready) when it answers, or why
// it does not, and systemd when it does. To be asked to end before it is up is no failure.
func Run(ctx context.Context, o Options) error {
	ready, up := inherited(api.ReadyFD), service.Starting()
	err := run(ctx, o, func() { tell(ready, nil); up() })
	tell(ready, err)
	if errors.Is(err, errAsked) {
		return nil
	}
	return err
}

// errAsked is why a daemon does not come up that was asked to end before.
var errAsked = errors.New("it was asked to end before it was up")

func run(ctx context.Context, o Options, ready func()) (err error) {
	ctx, stopSignals := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stopSignals()
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	context.AfterFunc(ctx, stopSignals) // a second signal ends it at once
	up := false
	defer func() {
		if err != nil && !up && ctx.Err() != nil {
			err = banger.Errorf(banger.Cancelled, "%w", errAsked)
		}
	}()
	unix.Umask(0o077)

	if err := prepare(o.Dirs); err != nil {
		return err
	}
	starting, err := turn(ctx, o.Dirs)
	if err != nil {
		return err
	}
	defer starting.Close()
	hold, err := claim(ctx, o.Dirs)
	if err != nil {
		return err
	}
	defer hold.release()
	logFile, err := openLog(o.Dirs.DaemonLog())
	if err != nil {
		return err
	}
	defer logFile.Close()

	here := api.Whereabouts{PID: os.Getpid(), Socket: o.Dirs.Socket()}
	leave := sync.OnceFunc(func() {
		here.Stopping = true
		_ = hold.say(here)
		quit()
	})
	d := &daemon{dirs: o.Dirs, buildID: o.BuildID, self: o.Self, quit: leave}
	if d.buildID == "" {
		d.buildID = build.ID()
	}
	release, err := d.compose(ctx, logFile, o.vms)
	if err != nil {
		return err
	}
	defer release()

	sock, err := listen(o.Dirs.Socket())
	if err != nil {
		return err
	}
	defer sock.Close()
	if err := hold.say(here); err != nil {
		return err
	}
	starting.Close()
	up = true
	ready()
	var answering sync.WaitGroup
	defer answering.Wait()
	defer quit()
	if o.Names != "" {
		answering.Go(func() { d.answerNames(ctx, o.Names) })
	}
	d.log.Info("daemon started", "pid", here.PID, "socket", here.Socket, "build", d.buildID)
	err = d.serve(ctx, sock)
	d.log.Info("daemon ended", "error", err)
	return err
}

// serve answers until ctx ends, then lets operations come to their end.
func (d *daemon) serve(ctx context.Context, sock *socket) error {
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	loop := make(chan error, 1)
	go func() { loop <- d.vms.Run(background) }()

	var open conns
	server := d.server()
	server.ConnState = open.changed
	served := make(chan error, 1)
	go func() { served <- server.Serve(sock) }()
	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
	}
	d.quit()
	sock.Close()
	d.operations.drain(patience)
	server.SetKeepAlivesEnabled(false)
	select {
	case <-open.quiet():
	case <-time.After(patience):
		d.log.Warn("ended in the middle of a request")
	}
	server.Close()
	stopBackground()
	if err := <-loop; err != nil && !errors.Is(err, context.Canceled) {
		d.log.Error("the watch over VMs ended early", "error", err)
	}
	return failed
}

// tell writes the line a starting client waits for, once.
func tell(pipe *os.File, err error) {
	if pipe == nil {
		return
	}
	line := api.Ready{}
	if err != nil {
		line.Error = &api.Problem{Title: err.Error(), Code: banger.CodeOf(err), Status: status(banger.CodeOf(err)), Hints: banger.HintsOf(err)}
	}
	_, _ = pipe.Write(api.Marshal(line))
	pipe.Close()
}
