package shim

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"banger"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vnet/reach"
)

// Options is what a binary gives its shims.
type Options struct {
	Build  string                                // id of the binary's build
	Driver func(name string) (vmm.Driver, error) // not_found for a name it does not know

	Network func(reach.Site) (Wire, error)
	Layers  Layers

	memory *os.File    // of the machine to restore, or nil
	room   func() bool // for a test; nil asks the file system
	steps  steps       // for a test; nil has the kernel tell
}

// gcPercent: a shim idles for days with a heap of a megabyte or two, and
// collecting that early costs nothing. There is no memory limit, below which
// the collector would fight for what clients that stand still have in flight.
const gcPercent = 25

// Main is the whole life of a shim: it boots what launch.json in dir
// describes, and returns when that has ended. Ending ctx, or SIGTERM, stops
// the VM in good order. It returns an error only where nothing was booted.
func Main(ctx context.Context, dir string, opts Options) error {
	syscall.Umask(0o077)
	debug.SetGCPercent(gcPercent)
	// Caught, not ignored: what is ignored would be so in the VMM too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()

	starter, memory := inherited(reportEnv, reportFD), inherited(memoryEnv, memoryFD)
	log := slog.New(slog.NewJSONHandler(openLog(paths.VM(dir)), nil))
	opts.memory = memory
	s, err := open(ctx, paths.VM(dir), opts, log)
	tell(starter, err)
	if err != nil {
		log.Error("cannot start", "error", err)
		return err
	}
	s.run(ctx)
	return nil
}

// inherited gives a descriptor that whoever started this process left it, or
// nil.
func inherited(env string, fd int) *os.File {
	if os.Getenv(env) == "" {
		return nil
	}
	_ = os.Unsetenv(env)
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), env)
}

// tell reports how the start went. A starter that is gone does not matter: the
// VM is there for the next one.
func tell(to *os.File, err error) {
	if to == nil {
		return
	}
	var line started
	if err != nil {
		line = started{Code: banger.CodeOf(err), Message: err.Error(), Hints: banger.HintsOf(err)}
	}
	_ = json.NewEncoder(to).Encode(line)
	_ = to.Close()
}
