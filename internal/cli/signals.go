package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"banger/internal/guestwire"
)

// insist is how soon a second Ctrl-C must follow to end banger itself.
const insist = 2 * time.Second

// endingSignals are INT, TERM and, unless started under nohup, HUP. An INT
// that shells have background jobs ignore is taken all the same: whoever sends
// one means us.
func endingSignals() []os.Signal {
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// cancelOnSignal is ctx ended by INT, TERM or HUP, with errInterrupted as the
// cause. A second signal ends banger at once.
func cancelOnSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	got := make(chan os.Signal, 1)
	signal.Notify(got, endingSignals()...)
	go func() {
		select {
		case <-got:
			cancel(errInterrupted)
			signal.Stop(got)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(got); cancel(nil) }
}

// controlled is a guest command, or several.
type controlled interface {
	Control(guestwire.Control) error
}

// forwarder passes signals on to a guest command while it runs.
type forwarder struct {
	stream controlled
	pty    bool
	now    func() time.Time
	last   time.Time // the last INT
}

// forward passes signals on until ctx ends. It calls giveUp when banger
// itself is to end: at the second INT within two seconds, and when the
// terminal behind a pty is gone.
func (f *forwarder) forward(ctx context.Context, signals <-chan os.Signal, giveUp func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			if err := f.handle(sig); err != nil {
				giveUp(err)
				return
			}
		}
	}
}

func (f *forwarder) handle(sig os.Signal) error {
	number, _ := sig.(syscall.Signal)
	switch {
	case number == syscall.SIGWINCH:
		if f.pty {
			resize(f.stream)
		}
		return nil
	case number == syscall.SIGHUP && f.pty:
		return statusError(128 + int(number)) // ends the stream, which hangs the command up
	case number == syscall.SIGINT:
		now := f.now()
		again := !f.last.IsZero() && now.Sub(f.last) < insist
		f.last = now
		if again {
			return errInterrupted
		}
	}
	_ = f.stream.Control(guestwire.SignalControl(uint8(number)))
	return nil
}
