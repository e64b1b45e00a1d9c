package workspace

import (
	"context"
	"io"
	"strings"

	"banger"
)

// Guest is what is asked of a guest. Everything it answers is a guest's word:
// data to be checked, never a command or a path to be trusted. It has one user
// whose the repository is, most often root.
type Guest interface {
	// Run runs a command to its end and gives its exit status: 127 for a
	// program that is not there. An error means that it could not be asked.
	Run(ctx context.Context, c Command) (status int, err error)

	// Unpack unpacks the tar stream that write writes, below a directory that
	// is there. Files become the guest's user's. An error of write ends it half-way.
	Unpack(ctx context.Context, dir string, write func(io.Writer) error) error

	// Look says what is at a path, links followed.
	Look(ctx context.Context, path string) (Found, error)
}

// Found is what is at a path.
type Found int

// What can be at a path.
const (
	Nothing Found = iota
	File
	Directory
)

// Command is a command for a guest. Argv is required.
type Command struct {
	Argv           []string
	Env            []string  // KEY=VALUE, on top of the guest's own
	Dir            string    // "" is the home directory
	Stdin          io.Reader // nil is none
	Stdout, Stderr io.Writer // nil is dropped
	Root           bool      // as root, whosever the repository is
}

// largestAnswer is how much of what a command prints is kept.
const largestAnswer = 64 << 20

// answer is what a command prints, as far as it is kept.
type answer struct {
	kept strings.Builder
	over error
}

func (a *answer) Write(p []byte) (int, error) {
	if a.kept.Len()+len(p) > largestAnswer {
		a.over = banger.Errorf(banger.Conflict, "cannot read the guest's answer: it has more than 64 MiB")
		return 0, a.over
	}
	return a.kept.Write(p)
}

func (a *answer) String() string { return a.kept.String() }

// check makes a failure of an answer that was not kept whole.
func (a *answer) check(err error) error {
	if a.over != nil {
		return a.over
	}
	return err
}
