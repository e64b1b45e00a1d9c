package cli

import (
	"context"
	"errors"
	"fmt"

	"banger"
)

// The exit statuses of banger itself. What a guest command returns is passed
// through instead.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitOurs        = 125 // banger's own failure where a guest command's status is passed through
	exitInterrupted = 130
)

// statusError ends the command with a status, silently: what there was to
// say has been said.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("status %d", int(s)) }

// usageError is a command line that makes no sense.
type usageError struct {
	err  error
	line string // how the command is used, as "banger vm show <vm>"
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// badUsage makes an error that ends with exitUsage.
func badUsage(format string, args ...any) *banger.Error {
	return banger.Errorf(banger.BadRequest, format, args...)
}

// ours marks a failure of banger where a guest command's status is passed
// through, so that it cannot be taken for one.
type ours struct{ error }

func (o ours) Unwrap() error { return o.error }

// exitStatus is the status an error ends banger with.
func exitStatus(err error) int {
	var status statusError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, new(*usageError)):
		return exitUsage
	case isInterrupt(err):
		return exitInterrupted
	case errors.As(err, new(ours)):
		return exitOurs
	case banger.CodeOf(err) == banger.BadRequest:
		return exitUsage
	}
	return exitFailed
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

func isInterrupt(err error) bool { return errors.Is(err, errInterrupted) }

// interrupted turns an error caused by a signal into what the person did.
func interrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}

// operationOf is the operation an error says to look for in the log.
func operationOf(err error) string {
	var e *banger.Error
	if errors.As(err, &e) {
		return e.OperationID
	}
	return ""
}
