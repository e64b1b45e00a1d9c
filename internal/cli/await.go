package cli

import (
	"context"

	"banger"
	"banger/internal/api"
	"banger/internal/shim"
)

// endedError is a VM that ended before its guest was ready.
type endedError struct{ exit shim.Exit }

func (e endedError) Error() string { return e.exit.Message }

// lateError is a guest that did not become ready in time.
type lateError struct{ problem string }

func (e lateError) Error() string { return e.problem }

// awaitGuest waits until the guest is ready: nil, endedError, lateError, or
// what the connection to the shim failed with.
func (l *launch) awaitGuest(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var outcome error
	known := false
	err := l.shim.Watch(ctx, func(s shim.Status) {
		switch {
		case known:
		case s.State == shim.Ended && s.Exit != nil:
			outcome, known = endedError{*s.Exit}, true
		case s.State == shim.Ended:
			outcome, known = endedError{shim.Exit{Message: "it ended without saying why"}}, true
		case s.State == shim.Booting && s.Problem != "":
			outcome, known = lateError{s.Problem}, true
		case s.State != shim.Booting:
			l.trace.start(s.Trace)
			outcome, known = nil, true
		}
		if known {
			stop()
		}
	})
	if known {
		return outcome
	}
	return err
}

// failedBoot says what becomes of a VM whose guest did not come up: one that
// is late is kept, with --rm too; one that ended is shown, and with --rm
// removed.
func (l *launch) failedBoot(ctx context.Context, err error) error {
	name := l.vm.Name
	switch e := err.(type) {
	case lateError:
		l.kept = true
		if l.create.Ephemeral {
			keep := false
			if _, err := l.client.ChangeVM(ctx, l.vm.ID, api.ChangeVM{Ephemeral: &keep}); err != nil {
				l.app.warn("cannot keep the VM %s: %v", name, err)
			}
		}
		return banger.Errorf(banger.Unavailable, "the guest of %s did not become ready: %s; the VM is kept", name, e.problem).
			Hint("banger vm logs %s", name).
			Hint("banger rm -f %s", name)
	case endedError:
		failed := banger.Errorf(banger.Unavailable, "the VM %s ended before its guest was ready: %s", name, e.exit.Message)
		if !l.create.Ephemeral {
			return failed.Hint("banger vm logs %s", name)
		}
		for _, line := range e.exit.Console {
			l.app.line(printable(line))
		}
		return failed
	}
	return err
}
