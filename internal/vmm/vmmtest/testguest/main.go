// Command testguest is the guest the conformance suite boots: as /init of a
// machine it loads its modules and serves the agent port, as "testguest serve"
// it serves descriptor 3 of an ordinary process.
//
// It speaks one line per request and one line per answer, and knows nothing of
// the real agent, so that a driver is judged without it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve(os.NewFile(3, "agent"), os.Stdout, process{}, func() (int, error) { return 4, nil })
		// As a machine does, it outlives its agent stream: what ends it
		// must be the driver.
		for {
			unix.Pause()
		}
	}
	console, port, err := boot()
	if err == nil {
		fmt.Fprintln(console, "testguest: up")
		serve(port, console, machine{}, openCard)
		err = fmt.Errorf("the agent port ended")
	}
	// PID 1 must not return before the reason is on the console: the kernel
	// panics then, and panic=-1 ends the machine.
	if console != nil {
		fmt.Fprintf(console, "testguest: %v\n", err)
	}
	os.Exit(1)
}

// ender ends the machine the way its kind of guest can.
type ender interface {
	poweroff() error
	reset() error
}

// serve greets and then answers requests until the stream ends.
func serve(port io.ReadWriter, console io.Writer, end ender, card func() (int, error)) {
	s := &session{port: port, console: console, end: end, card: sync.OnceValues(card)}
	s.reply("hello")
	for in := bufio.NewScanner(port); in.Scan(); { // lines up to 64 KiB
		s.request(in.Text())
	}
}
