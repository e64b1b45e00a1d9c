package workspace

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io"
	"strings"

	"banger"
	"banger/internal/patch"
)

// The guest's half of an export is one of two scripts, after what both begin with.
var (
	//go:embed look.sh
	lookScript string
	//go:embed export.sh
	exportScript string
	//go:embed mailbox.sh
	mailboxScript string
)

// What the guest's half of an export ends with.
const (
	noRepository = 3
	noBase       = 4
	noCommit     = 5
	dirtyBase    = 6
	noAncestor   = 7
	merges       = 8
	noProgram    = 127
)

// Runner is the part of a Guest that an export needs.
type Runner interface {
	Run(ctx context.Context, c Command) (status int, err error)
}

// Work is what a guest did in a repository that was brought in, as it was when
// it was fetched. It lies on the host, in quarantine, until it is closed.
type Work struct {
	Base, Tree string         // what was brought in, or another commit's; what there is now
	Changes    []patch.Change // from the one to the other, by path
	quarantine *quarantine
	large      []string // paths that a patch does not show by lines
}

// Taking says what to take out of a guest.
type Taking struct {
	Path   string // of the repository, in the guest
	Base   string // the tree that was brought in
	Head   string // the commit that was brought in, "" where there was none
	Commit string // compare with this one instead, or ""

	objects bool // what changed is to come as objects, not as files
}

// TakeOut fetches what a guest did: the objects that make the difference between
// two trees. The guest's index, refs and files stay as they are. scratch is where
// quarantines are.
func TakeOut(ctx context.Context, g Runner, scratch string, t Taking) (_ *Work, err error) {
	w := &Work{}
	if w.quarantine, err = newQuarantine(scratch, t.Base); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	t.objects = t.Commit != "" // more than the files that changed since may differ from it
	if err = w.takeOut(ctx, g, t); errors.Is(err, errOtherFiles) {
		t.objects = true
		err = w.takeOut(ctx, g, t)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// errOtherFiles says that files came which are not what the guest's tree names: it
// converts the ends of their lines, they were written to meanwhile, or its tar knows
// too little.
var errOtherFiles = errors.New("the files are not those of the tree")

func (w *Work) takeOut(ctx context.Context, g Runner, t Taking) (err error) {
	if err := w.fetch(ctx, g, t); err != nil || w.Base == w.Tree {
		return err
	}
	if w.Changes, err = w.quarantine.changes(ctx, w.Base, w.Tree, comparing); err != nil {
		return err
	}
	found, err := w.quarantine.weigh(ctx, w.Changes)
	if err == nil && !found.whole && !t.objects {
		return errOtherFiles
	}
	w.large = found.large
	return err
}

// Close removes it from the host.
func (w *Work) Close() { w.quarantine.close() }

// fetch runs the guest's half and takes in what comes.
func (w *Work) fetch(ctx context.Context, g Runner, t Taking) error {
	return t.run(ctx, g, exportScript, func(r *bufio.Reader) error { return w.takeIn(ctx, r, t) })
}

// run runs a script in the guest and reads what it prints. What the guest says of
// a failure explains more than what could not be read after it.
func (t Taking) run(ctx context.Context, g Runner, script string, read func(*bufio.Reader) error) error {
	r, to := io.Pipe()
	var complaint complaint
	status, objects := 0, ""
	if t.objects {
		objects = "objects"
	}
	asked := make(chan error, 1)
	go func() {
		var err error
		status, err = g.Run(ctx, Command{
			Argv:   []string{"sh", "-c", lookScript + script, "banger-export", t.Path, t.Base, t.Commit, t.Head, objects},
			Stdout: to, Stderr: &complaint,
		})
		_ = to.CloseWithError(err)
		asked <- err
	}()
	readErr := read(bufio.NewReader(r))
	_ = r.CloseWithError(errEnough) // a guest that still writes ends
	if err := <-asked; err != nil && !errors.Is(err, errEnough) {
		return err
	}
	told := status <= merges || status == noProgram || complaint.Len() > 0
	if status != 0 && (told || readErr == nil) {
		return t.failed(status, complaint.String())
	}
	return readErr
}

// complaint keeps the beginning of what a guest writes to stderr.
type complaint struct{ bytes.Buffer }

func (c *complaint) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), 4<<10-c.Len())])
	return len(p), nil
}

// errEnough ends the guest's half where nobody reads on.
var errEnough = errors.New("nobody reads on")

// takeIn reads what the guest's half prints. A quarantine that has taken in a
// part of it is thrown away.
func (w *Work) takeIn(ctx context.Context, r *bufio.Reader, t Taking) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return unreadable(err)
	}
	trees, files := strings.CutSuffix(strings.TrimSuffix(line, "\n"), " files")
	var ok bool
	if w.Base, w.Tree, ok = strings.Cut(trees, " "); !ok || !isID(w.Base, t.Base) || !isID(w.Tree, t.Base) {
		return unreadable(errors.New("it names no trees"))
	}
	if t.Commit == "" && w.Base != t.Base {
		return unreadable(errors.New("it compares with another tree"))
	}
	if w.Base == w.Tree {
		return nil
	}
	if files {
		if err := w.quarantine.takeFiles(ctx, r, receiving); err != nil {
			return unreadable(err)
		}
	}
	if err := w.quarantine.take(ctx, r); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	return banger.Wrap(err, "cannot read what the guest sent")
}

// isID says whether something is git's name of an object, of the same kind as
// another.
func isID(id, like string) bool {
	return len(id) == len(like) && strings.Trim(id, "0123456789abcdef") == ""
}

// failed explains the status of the guest's half.
func (t Taking) failed(status int, complaint string) error {
	switch status {
	case noRepository:
		return banger.Errorf(banger.NotFound, "there is no repository at %s in the guest any more", t.Path).
			Hint("banger vm workspace prepare %s PATH brings it in again", banger.ThisVM)
	case noBase:
		return banger.Errorf(banger.NotFound, "the guest's repository no longer knows what was brought in").
			Hint("banger vm cp %s:%s DIR copies the files out", banger.ThisVM, banger.ShellWord(t.Path))
	case noCommit:
		return banger.Errorf(banger.NotFound, "the guest's repository has no commit %q", t.Commit).
			Hint("banger exec %s -- git log --oneline --all lists those it has", banger.ThisVM)
	case dirtyBase:
		return banger.Errorf(banger.Conflict, "what was brought in is not a commit but a tree with changes, and commits after it are not all of the work").
			Hint("--format patch holds all of it")
	case noAncestor:
		return banger.Errorf(banger.Conflict, "the guest's branch does not begin at the commit %s", t.Commit).Hint("--format patch does not need that")
	case merges:
		return banger.Errorf(banger.Conflict, "there are merges among the guest's commits, which mails cannot hold").Hint("--format patch holds what came of them")
	case noProgram:
		return banger.Errorf(banger.Unavailable, "the guest has no git").
			Hint("banger vm cp %s:%s DIR copies the files out", banger.ThisVM, banger.ShellWord(t.Path))
	}
	if complaint = strings.TrimSpace(complaint); complaint == "" {
		return banger.Errorf(banger.Internal, "the guest ended with status %d", status)
	}
	return banger.Errorf(banger.Internal, "in the guest: %s", complaint)
}

// Patch writes the work as a patch that git applies. It is made by the host's
// git, of objects alone. Where it fails, a part of it may have been written.
func (w *Work) Patch(ctx context.Context, to io.Writer) error {
	err := w.patch(ctx, to, printing)
	if errors.As(err, new(overdrawn)) {
		return banger.Errorf(banger.CodeOf(err), "cannot make a patch: %w", err).Hint("--apply makes the changes without one")
	}
	return err
}

func (w *Work) patch(ctx context.Context, to io.Writer, most bounds) error {
	if len(w.Changes) == 0 {
		return nil
	}
	if err := w.quarantine.attributes(asBinary(w.large)); err != nil {
		return err
	}
	args := []string{"diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv",
		"--src-prefix=a/", "--dst-prefix=b/"}
	if w.onlyNewRepositories() {
		args = append(args, "--ignore-submodules=all")
	}
	return w.quarantine.within(most).stream(ctx, nil, to, append(args, w.Base, w.Tree)...)
}

// Mailbox writes the guest's commits since t.Commit as mails that "git am" takes,
// and says whether there is work in no commit. It is the guest's own text.
func Mailbox(ctx context.Context, g Runner, t Taking, to io.Writer) (dirty bool, err error) {
	if t.Commit == "" {
		t.Commit = t.Head
	}
	if t.Head == "" {
		return false, banger.Errorf(banger.Conflict, "there was no commit yet when the repository was brought in").
			Hint("--format patch needs none")
	}
	err = t.run(ctx, g, mailboxScript, func(r *bufio.Reader) error {
		line, err := r.ReadString('\n')
		if err != nil {
			return unreadable(err)
		}
		dirty = line == "dirty\n"
		return copyUpTo(largestPack, to, r)
	})
	return dirty, err
}

// copyUpTo copies all there is, unless it is more than that.
func copyUpTo(most int64, to io.Writer, from io.Reader) error {
	n, err := io.Copy(to, io.LimitReader(from, most+1))
	if err == nil && n > most {
		err = banger.Errorf(banger.Conflict, "what the guest sent is larger than %d bytes", most)
	}
	return err
}

// Repositories lists other repositories among the changes: submodules whose
// commit changed, and those that the guest made or cloned. Their files are not in
// the work.
func (w *Work) Repositories() (changed, made []string) {
	for _, c := range w.Changes {
		switch {
		case c.Old.Mode == patch.Repository:
			changed = append(changed, c.Path)
		case c.New.Mode == patch.Repository:
			made = append(made, c.Path)
		}
	}
	return changed, made
}

func (w *Work) onlyNewRepositories() bool {
	changed, made := w.Repositories()
	return len(changed) == 0 && len(made) > 0
}

// Apply makes the changes in the host's tree, but for repositories that are new.
// journals is where an apply that is killed can be found.
func (w *Work) Apply(ctx context.Context, root, journals string) (patch.Applied, error) {
	var changes []patch.Change
	for _, c := range w.Changes {
		if c.Old.Mode != patch.Absent || c.New.Mode != patch.Repository {
			changes = append(changes, c)
		}
	}
	git, err := newCheckout(ctx, root, w.quarantine, changes)
	if err != nil {
		return patch.Applied{}, err
	}
	defer git.close()
	return patch.Apply(root, journals, changes, git)
}
