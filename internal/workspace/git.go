package workspace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"

	"banger"
)

// keptVariables are what git on the host gets to see of the environment: enough
// for the user's own configuration, excludes and identity to count.
var keptVariables = []string{"PATH", "HOME", "XDG_CONFIG_HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH"}

// quietly turns off everything in git that runs other programs, looks for news
// or writes by the way.
var quietly = []string{
	"--no-pager", "--no-optional-locks", "--no-replace-objects", "--literal-pathspecs",
	"-c", "core.hooksPath=/dev/null",
	"-c", "core.fsmonitor=false",
	"-c", "core.untrackedCache=false",
	"-c", "core.splitIndex=false",
	"-c", "core.quotePath=false",
	"-c", "gc.auto=0",
	"-c", "maintenance.auto=false",
	"-c", "advice.graftFileDeprecated=false",
}

// git is the host's git, run in a directory.
type git struct {
	dir      string
	env      []string // on top of the scrubbed environment
	settings []string // KEY=VALUE of its configuration
	bounds   bounds
}

// with is g with more environment, as KEY=VALUE.
func (g git) with(env ...string) git {
	g.env = append(append([]string(nil), g.env...), env...)
	return g
}

// run runs git to its end and gives what it printed.
func (g git) run(ctx context.Context, args ...string) ([]byte, error) {
	return g.feed(ctx, nil, args...)
}

// feed is run with something on git's stdin.
func (g git) feed(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := g.stream(ctx, in, &out, args...)
	return out.Bytes(), err
}

// line is run for what prints one line.
func (g git) line(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

// list is run for what prints items that end in NUL.
func (g git) list(ctx context.Context, args ...string) ([]string, error) {
	out, err := g.run(ctx, args...)
	return split(out), err
}

// read is run for what prints more than is to be kept.
func (g git) read(ctx context.Context, in io.Reader, read func(io.Reader) error, args ...string) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := read(r)
		_ = r.CloseWithError(errEnough)
		done <- err
	}()
	err := g.stream(ctx, in, w, args...)
	_ = w.CloseWithError(err)
	if readErr := <-done; readErr != nil {
		return readErr
	}
	return err
}

// stream runs git between two streams.
func (g git) stream(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	var complaint bytes.Buffer
	cmd := g.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &complaint
	err := g.bounds.run(cmd)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return banger.Errorf(banger.Unavailable, "cannot run git: it is not installed").Hint("sudo apt-get install git")
	}
	failed := &gitError{args: command(args), status: cmd.ProcessState.ExitCode(), complaint: complaint.String(), err: err}
	return g.bounds.explain(failed, cmd.ProcessState)
}

// command is git, about to be run.
func (g git) command(ctx context.Context, args ...string) *exec.Cmd {
	options := append([]string(nil), quietly...)
	for _, s := range g.settings {
		options = append(options, "-c", s)
	}
	cmd := exec.CommandContext(ctx, "git", append(options, args...)...)
	cmd.Dir, cmd.Env = g.dir, scrubbed(g.env)
	return cmd
}

// gitError is a git that failed.
type gitError struct {
	args      []string
	status    int
	complaint string
	err       error
}

func (e *gitError) Error() string {
	said := strings.TrimSpace(e.complaint)
	if said == "" {
		said = e.err.Error()
	}
	return "git " + e.args[0] + ": " + strings.TrimPrefix(said, "fatal: ")
}

// command is what git was asked to do, without the options before it.
func command(args []string) []string {
	for len(args) > 2 && args[0] == "-c" {
		args = args[2:]
	}
	return args
}

// failed is the exit status of a git that failed, 0 for another error or none.
func failed(err error) int {
	var e *gitError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// scrubbed is the environment of git on the host. Nothing of GIT_* gets
// through: a hook or an alias that calls banger must not lead it elsewhere.
func scrubbed(more []string) []string {
	env := []string{"LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0"}
	for _, name := range keptVariables {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, more...)
}

// split takes apart what ends in NUL.
func split(out []byte) []string {
	if len(out) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}
