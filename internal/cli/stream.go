package cli

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// streams is what a guest command is joined to. A nil In is none.
type streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// errOutput says that the command's output could not be written here.
type errOutput struct{ error }

func (e errOutput) Unwrap() error { return e.error }

// attach joins an exec stream to our own and waits for the command's end.
// Everything the command wrote has been written when it returns. A reader of
// ours that goes away, as after "| head", is passed on to the command as a
// closed pipe and is no failure here.
func attach(ctx context.Context, s *guestwire.Stream, with streams) (guestwire.Exit, error) {
	defer context.AfterFunc(ctx, s.Reset)()
	if with.In != nil {
		// Nobody waits for this one: a read of a terminal cannot be ended.
		go passInput(s, with.In)
	}
	var copies sync.WaitGroup
	var outErr, errErr error
	copies.Go(func() { outErr = passOutput(s, guestwire.Stdout, with.Out) })
	copies.Go(func() { errErr = passOutput(s, guestwire.Stderr, with.Err) })
	copies.Wait()
	body, err := s.Wait(ctx)
	if err != nil {
		return guestwire.Exit{}, guestlink.Error(err)
	}
	exit, err := guestwire.ParseExit(body)
	if err == nil {
		err = errors.Join(outErr, errErr)
	}
	return exit, err
}

// attachUntil is attach that waits no longer for a reader of ours once ctx has ended:
// that may stand still for ever. Its outputs may then still be written to.
func attachUntil(ctx context.Context, s *guestwire.Stream, with streams) (guestwire.Exit, error) {
	ended := make(chan struct{})
	var exit guestwire.Exit
	var err error
	go func() {
		defer close(ended)
		exit, err = attach(ctx, s, with)
	}()
	select {
	case <-ended:
		return exit, err
	case <-ctx.Done():
		return guestwire.Exit{}, context.Cause(ctx)
	}
}

// passInput sends what there is and then the end of it. When it fails, the
// stream has ended.
func passInput(s *guestwire.Stream, in io.Reader) {
	to := s.Writer(guestwire.Stdin)
	_, _ = io.Copy(to, in)
	_ = to.Close()
}

// passOutput copies one output until its end. After a failed write the rest
// is discarded, so that the command can end.
func passOutput(s *guestwire.Stream, channel uint8, to io.Writer) error {
	from := s.Reader(channel)
	w := &rememberingWriter{to: to}
	_, _ = io.Copy(w, from)
	if w.err == nil {
		return nil // the end, or a loss, which Wait reports
	}
	_ = s.Control(guestwire.CloseOutputControl(channel))
	_, _ = io.Copy(io.Discard, from)
	if errors.Is(w.err, syscall.EPIPE) {
		return nil
	}
	return errOutput{w.err}
}

// rememberingWriter keeps the error of the writing side apart from the
// reading side's.
type rememberingWriter struct {
	to  io.Writer
	err error
}

func (w *rememberingWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
