package workspace

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"banger/internal/patch"
)

// checkout is the host's git as an apply needs it: it gives files as they are to
// lie in the work tree, and names those that lie there. It converts the ends of
// lines where the repository says so, and runs no filter.
type checkout struct {
	ctx       context.Context
	git       git             // in the work tree; knows the objects of a quarantine too
	converted map[string]bool // paths of files that are not as git stores them
	raw       *catFile
	modes     bool
}

func newCheckout(ctx context.Context, root string, q *quarantine, changes []patch.Change) (*checkout, error) {
	repo, err := open(ctx, root)
	if err != nil {
		return nil, err
	}
	c := &checkout{ctx: ctx, git: repo.git.within(receiving).with("GIT_ALTERNATE_OBJECT_DIRECTORIES=" + quoted(filepath.Join(q.dir, "objects")))}
	c.git.dir = root
	c.modes = repo.config.all["core.filemode"] != "false"
	return c, c.findConverted(repo.config, changes)
}

// findConverted asks which files git would write otherwise than it stores them.
// Where nothing asks for another end of line, text that git found by itself stays
// as it is.
func (c *checkout) findConverted(conf config, changes []patch.Change) error {
	crlf := conf.all["core.autocrlf"] == "true" || conf.all["core.eol"] == "crlf"
	in := &texts{changes: changes, text: func(change patch.Change) string {
		if change.New.Mode == patch.Plain || change.New.Mode == patch.Executable {
			return change.Path + "\x00"
		}
		return ""
	}}
	c.converted = map[string]bool{}
	return c.git.read(c.ctx, in, func(r io.Reader) error {
		return eachThree(r, func(path, name, value string) {
			switch {
			case name == "text" && crlf && value != "unset",
				name == "eol" && value == "crlf",
				(name == "ident" || name == "working-tree-encoding") && value != "unspecified" && value != "unset":
				c.converted[path] = true
			}
		})
	}, "check-attr", "-z", "--stdin", "text", "eol", "ident", "working-tree-encoding")
}

// eachThree reads items that end in NUL, three at a time.
func eachThree(from io.Reader, f func(a, b, c string)) error {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		var items [3]string
		for i := range items {
			item, err := r.ReadString(0)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			items[i] = strings.TrimSuffix(item, "\x00")
		}
		f(items[0], items[1], items[2])
	}
}

// Copy gives a content.
func (c *checkout) Copy(w io.Writer, id, path string) (err error) {
	if c.converted[path] {
		return c.git.stream(c.ctx, nil, w, "cat-file", "--filters", "--path="+path, id)
	}
	if c.raw == nil {
		if c.raw, err = c.git.catFile(c.ctx); err != nil {
			return err
		}
	}
	return c.raw.copy(w, id)
}

// Names gives the names of files as git would store them.
func (c *checkout) Names(paths []string) ([]string, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	var in strings.Builder
	for _, p := range paths {
		in.WriteString(quoted(p) + "\n")
	}
	out, err := c.git.feed(c.ctx, strings.NewReader(in.String()), "hash-object", "--stdin-paths")
	names := strings.Fields(string(out))
	if err == nil && len(names) != len(paths) {
		err = errors.New("git hash-object: not all files were named")
	}
	return names, err
}

// Modes gives core.fileMode.
func (c *checkout) Modes() bool { return c.modes }

func (c *checkout) close() {
	if c.raw != nil {
		c.raw.close()
	}
}

// catFile is a git that gives one object after the other.
type catFile struct {
	cmd       *exec.Cmd
	bounds    bounds
	to        io.WriteCloser
	out       *bufio.Reader
	complaint bytes.Buffer
}

// catFile starts one. Large contents go through it in pieces.
func (g git) catFile(ctx context.Context) (*catFile, error) {
	cmd := g.command(ctx, "-c", "core.bigFileThreshold=1m", "cat-file", "--batch")
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := &catFile{cmd: cmd, bounds: g.bounds, to: to, out: bufio.NewReaderSize(out, 64<<10)}
	cmd.Stderr = &c.complaint
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := g.bounds.set(cmd.Process.Pid); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *catFile) copy(w io.Writer, id string) error {
	if _, err := io.WriteString(c.to, id+"\n"); err != nil {
		return c.failed(err)
	}
	head, err := c.out.ReadString('\n')
	if err != nil {
		return c.failed(err)
	}
	var got, kind string
	var size int64
	if n, _ := fmt.Sscan(head, &got, &kind, &size); n != 3 || got != id || kind != "blob" {
		return fmt.Errorf("the guest did not send the content %s", id)
	}
	n, err := io.CopyN(w, c.out, size)
	if errors.Is(err, io.EOF) && n < size {
		return c.failed(err)
	}
	if err == nil {
		_, err = c.out.Discard(1) // the line's end
	}
	return err
}

// failed says why git ended before it was told to.
func (c *catFile) failed(err error) error {
	if ended := c.cmd.Wait(); ended == nil {
		return err
	}
	return c.bounds.explain(&gitError{args: []string{"cat-file"}, complaint: c.complaint.String(), err: err}, c.cmd.ProcessState)
}

// close ends it, also before everything was read.
func (c *catFile) close() {
	_ = c.to.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
