package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"banger/internal/guest/boot"
	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// Main is the guest binary: what it does is in its arguments and its process
// id. It returns the exit status.
//
//	/init                  as PID 1: bring the machine up and serve its host
//	AGENT beside PROBLEM…  serve it beside systemd, which /init becomes
//	AGENT serve            serve a host on descriptor 3, as an ordinary process
//	AGENT sftp             serve files to whoever is at stdin and stdout
//	AGENT modprobe NAME…   load modules; AGENT -q -- NAME is how the kernel asks
func Main(args []string, version string) int {
	switch {
	case len(args) > 1 && args[1] == "serve":
		return serve(version)
	case len(args) > 1 && args[1] == besideArg:
		return serveBeside(version, args[2:])
	case len(args) > 1 && args[1] == "sftp":
		return serveFiles()
	case len(args) > 1 && (args[1] == "modprobe" || args[1] == "-q"):
		return modprobe(args[2:])
	case os.Getpid() == 1:
		return initMachine(version)
	}
	fmt.Fprintln(os.Stderr, "usage: banger-guest serve | banger-guest sftp | banger-guest modprobe NAME… (or as PID 1)")
	return 2
}

func modprobe(names []string) int {
	for len(names) > 0 && (names[0] == "--" || names[0] == "-q") {
		names = names[1:]
	}
	if err := boot.Modprobe(names); err != nil {
		fmt.Fprintln(os.Stderr, "modprobe:", err)
		return 1
	}
	return 0
}

// serve is the agent alone, on descriptor 3.
func serve(version string) int {
	// What commands leave behind is ours, as it would be PID 1's.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	unix.CloseOnExec(3)
	p := &process{}
	a := newAgent(p, version)
	p.procs = a.procs
	err := guestwire.Serve(os.NewFile(3, "link"), true, a.handle)
	if a.isEnding() {
		select {} // the shutdown ends us, with its status
	}
	fmt.Fprintln(os.Stderr, "banger-guest: the link to the host:", err)
	a.end(unix.SIGKILL, time.Second)
	return 1
}

// initMachine is PID 1: it never returns, since the kernel would panic.
func initMachine(version string) int {
	sys, err := boot.Enter()
	say(sys.Problems)
	if errors.Is(err, boot.ErrTimer) {
		fmt.Fprintln(os.Stderr, "banger:", err)
		boot.Reset()
	}
	if err == nil && sys.Systemd() {
		err = handOver(sys)
	}
	if err != nil {
		powerOff(err)
	}
	link := furnish(sys)
	a := newAgent(newSystem(sys), version)
	if err := a.serveInitctl(); err != nil {
		sys.Problems = append(sys.Problems, fmt.Sprintf("cannot make %s: %v", initctl, err))
	}
	go a.obeySignals()
	go sys.EmptyTrash()
	serveLink(link, a.handle)
	return 1
}

// furnish does for the agent's process what is left to do of a boot and gives the way
// to the host.
func furnish(sys *boot.System) func() (io.ReadWriteCloser, error) {
	debug.SetTraceback("single")
	// On one processor a goroutine that the link's reader wakes would wait
	// until the runtime notices that the reader blocks again.
	runtime.GOMAXPROCS(max(2, runtime.NumCPU()))
	before := len(sys.Problems)
	sys.Furnish()
	say(sys.Problems[before:])
	// Half of a seed would be found by whoever comes first, and be in every fork.
	if err := sys.TakeSeed(func(dir string) error { return fillHome(dir, rootHome) }); err != nil {
		powerOff(fmt.Errorf("cannot fill %s from the image's work seed: %w", rootHome, err))
	}
	link, err := openLink(sys)
	if err != nil {
		powerOff(err)
	}
	sys.StopListening()
	if sys.Emulated() {
		if err := calmSysmon(); err != nil {
			sys.Problems = append(sys.Problems, fmt.Sprintf("cannot calm the runtime's monitor: %v", err))
		}
	}
	return link
}

// say puts problems on the console.
func say(problems []string) {
	for _, problem := range problems {
		fmt.Fprintln(os.Stderr, "banger:", problem)
	}
}

// powerOff ends a machine that cannot be of use.
func powerOff(why error) {
	fmt.Fprintln(os.Stderr, "banger: this machine cannot start:", why)
	unix.Sync()
	newSystem(&boot.System{}).end(false)
}
