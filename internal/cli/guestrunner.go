package cli

import (
	"context"
	"io"
	"os"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/shim"
	"banger/internal/workspace"
)

// guestRunner runs commands in a guest for banger itself.
type guestRunner struct {
	shim *shim.Client
	user string // whose commands they are, "" for root
}

// name is that user's. A command of nobody's would be run as the image's own user.
func (g guestRunner) name() string {
	if g.user == "" {
		return "root"
	}
	return g.user
}

// Run runs a command to its end.
func (g guestRunner) Run(ctx context.Context, c workspace.Command) (int, error) {
	request := guestwire.Exec{
		Argv: c.Argv, Env: c.Env, Dir: c.Dir, User: g.name(), UID: uint32(os.Getuid()), Stdin: c.Stdin != nil,
	}
	if c.Root {
		request.User = "root"
	}
	s, err := g.shim.Conn().Open(guestwire.KindExec, request.Append(nil))
	if err != nil {
		return 0, banger.Wrap(err, "cannot reach the guest")
	}
	exit, err := attach(ctx, s, streams{In: c.Stdin, Out: orDiscard(c.Stdout), Err: orDiscard(c.Stderr)})
	if err == nil && exit.Message != "" {
		_, err = io.WriteString(orDiscard(c.Stderr), exit.Message)
	}
	return int(exit.Status), err
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
