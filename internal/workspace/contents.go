package workspace

import (
	"bufio"
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
	c := &checkout{ctx: ctx, git: repo.git.with("GIT_ALTERNATE_OBJECT_DIRECTORIES=" + quoted(filepath.Join(q.dir, "objects")))}
	c.git.dir = root
	c.modes = repo.config.all["core.filemode"] != "false"
	return c, c.findConverted(repo.config, changes)
}

// findConverted asks which files git would write otherwise than it stores them.
// Where nothing asks for another end of line, text that git found by itself stays
// as it is.
func (c *checkout) findConverted(conf config, changes []patch.Change) error {
	crlf := conf.all["core.autocrlf"] == "true" || conf.all["core.eol"] == "crlf"
	var in strings.Builder
	for _, change := range changes {
		if change.New.Mode == patch.Plain || change.New.Mode == patch.Executable {
			in.WriteString(change.Path + "\x00")
		}
	}
	out, err := c.git.feed(c.ctx, strings.NewReader(in.String()), "check-attr", "-z", "--stdin", "text", "eol", "ident", "working-tree-encoding")
	c.converted = map[string]bool{}
	items := split(out)
	for i := 0; i+2 < len(items); i += 3 {
		switch path, name, value := items[i], items[i+1], items[i+2]; {
		case name == "text" && crlf && value != "unset",
			name == "eol" && value == "crlf",
			(name == "ident" || name == "working-tree-encoding") && value != "unspecified" && value != "unset":
			c.converted[path] = true
		}
	}
	return err
}

// Copy gives a content.
func (c *checkout) Copy(w io.Writer, id, path string) (err error) {
	if c.converted[path] {
		return c.git.stream(c.ctx, nil, w, "cat-file", "--filters", "--path="+path, id)
	}
	if c.raw == nil {
		if c.raw, err = startCatFile(c.git.command(c.ctx, "cat-file", "--batch")); err != nil {
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
	cmd *exec.Cmd
	to  io.WriteCloser
	out *bufio.Reader
}

func startCatFile(cmd *exec.Cmd) (*catFile, error) {
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &catFile{cmd, to, bufio.NewReaderSize(out, 64<<10)}, cmd.Start()
}

func (c *catFile) copy(w io.Writer, id string) error {
	if _, err := io.WriteString(c.to, id+"\n"); err != nil {
		return err
	}
	head, err := c.out.ReadString('\n')
	if err != nil {
		return err
	}
	var got, kind string
	var size int64
	if n, _ := fmt.Sscan(head, &got, &kind, &size); n != 3 || got != id || kind != "blob" {
		return fmt.Errorf("the guest did not send the content %s", id)
	}
	if _, err := io.CopyN(w, c.out, size); err != nil {
		return err
	}
	_, err = c.out.Discard(1) // the line's end
	return err
}

// close ends it, also before everything was read.
func (c *catFile) close() {
	_ = c.to.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
