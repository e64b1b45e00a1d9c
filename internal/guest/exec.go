package guest

import (
	"errors"
	"os"
	"syscall"
	"time"

	"banger/internal/guestwire"
)

const (
	// hangUpTime is what an abandoned command has to end after SIGHUP.
	hangUpTime = 10 * time.Second

	// lingerTime is what processes in the background of a command that has
	// ended have to let go of its output, or to say their last word.
	lingerTime = 200 * time.Millisecond

	// eofTime is how long the end of one output waits for the end of the
	// command, which mostly follows at once and says it too.
	eofTime = 20 * time.Millisecond
)

// beginCommand counts a command whose last words a shutdown is to wait for. None begins
// once it may be waiting.
func (a *agent) beginCommand() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ending {
		a.commands.Add(1)
	}
	return !a.ending
}

// exec runs a command for a stream.
func (a *agent) exec(s *guestwire.Stream) {
	if !a.beginCommand() {
		s.Fail("not_running", "the guest is shutting down")
		return
	}
	defer a.commands.Done()
	request, err := guestwire.ParseExec(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	c, err := a.start(s, request)
	var cannot *notRun
	var f *failure
	switch {
	case errors.As(err, &cannot):
		s.Finish(guestwire.Exit{Status: cannot.status, Message: cannot.message}.Append(nil))
	case errors.As(err, &f):
		s.Fail(f.code, err.Error())
	case err != nil:
		s.Fail("internal", "cannot run "+request.Argv[0]+": "+err.Error())
	case request.Detach:
		a.unattended.add(c.child)
		s.Finish(guestwire.Exit{}.Append(nil)) // the reaper sees to its end
	case !c.run():
		a.unattended.add(c.child)
	}
}

// command is a command that runs.
type command struct {
	procs  *reaper
	stream *guestwire.Stream
	child  *child

	stdin    *os.File // what the command reads, or nil
	terminal *os.File // the pty's master, or nil; it is stdin and an output too
	outputs  []*output
	ended    chan *output // an output that ended
}

// run carries the command's bytes and waits for its end; false means that the command
// lives on by itself.
func (c *command) run() bool {
	for _, o := range c.outputs {
		go o.copy(c.ended)
	}
	if c.stdin != nil {
		go c.feed()
	}
	go c.control()
	if !c.wait() {
		if adrift(c.stream.Err()) {
			return false
		}
		c.abandon()
		return true
	}
	c.drain()
	c.stream.Finish(ending(c.child.status).Append(nil))
	return true
}

// wait waits for the command's end; false means that the host went first.
// Meanwhile it passes on that an output has ended before the command.
func (c *command) wait() bool {
	var late <-chan time.Time
	var closed []*output
	for {
		select {
		case <-c.child.done:
			return true
		case <-c.stream.Done():
			return false
		case o := <-c.ended:
			closed = append(closed, o)
			late = time.After(eofTime)
		case <-late:
			for _, o := range closed {
				_ = o.to.Close()
			}
			closed, late = nil, nil
		}
	}
}

// drain sends what is left in the pipes. All that the command itself wrote is
// there by now.
func (c *command) drain() {
	linger := time.AfterFunc(lingerTime, func() {
		for _, o := range c.outputs {
			o.hurry()
		}
	})
	defer linger.Stop()
	for _, o := range c.outputs {
		<-o.done
	}
}

// adrift says whether a stream ended because this machine was restored from
// one that was saved. Whoever it came from is with that one; here its command
// lives on, as a process lives on in a fork: what it says is read and dropped, its
// input stays open, and nobody signals it.
func adrift(err error) bool { return errors.Is(err, guestwire.ErrResync) }

// abandon ends the command of a host that has gone.
func (c *command) abandon() {
	_ = syscall.Kill(-c.child.pid, syscall.SIGHUP)
	for _, o := range c.outputs {
		_ = o.from.Close()
	}
	// The group outlives its leader if others in it ignore SIGHUP.
	time.AfterFunc(hangUpTime, func() { _ = syscall.Kill(-c.child.pid, syscall.SIGKILL) })
}

// feed gives the command its input. The stream's EOF ends the command's input
// and nothing else.
func (c *command) feed() {
	from := c.stream.Reader(guestwire.Stdin)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := from.Read(*buf)
		if n > 0 {
			if _, err := c.stdin.Write((*buf)[:n]); err != nil {
				break // it does not want any more
			}
		}
		if adrift(err) {
			<-c.child.done
		}
		if err != nil {
			break
		}
	}
	if c.terminal != nil {
		c.endTerminalInput()
		return
	}
	_ = c.stdin.Close()
}

// control does what the host asks of the running command.
func (c *command) control() {
	for {
		ctl, ok := c.stream.NextControl()
		if !ok {
			return
		}
		if sig, ok := ctl.Signal(); ok {
			c.procs.signal(c.child, syscall.Signal(sig))
		}
		if rows, cols, ok := ctl.Resize(); ok && c.terminal != nil {
			_ = setSize(c.terminal, rows, cols)
		}
		if channel, ok := ctl.Output(); ok {
			c.closeOutput(channel)
		}
	}
}

func (c *command) closeOutput(channel uint8) {
	for _, o := range c.outputs {
		if o.channel == channel {
			_ = o.to.Close() // wakes a copy that waits for credit
			_ = o.from.Close()
		}
	}
}

// ending is a wait status, its status as a shell shows it.
func ending(w syscall.WaitStatus) guestwire.Exit {
	if w.Signaled() {
		return guestwire.Exit{Status: 128 + uint8(w.Signal()), Signal: uint8(w.Signal())}
	}
	return guestwire.Exit{Status: uint8(w.ExitStatus())}
}
