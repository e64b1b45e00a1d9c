package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// copying is one copy from or to one VM.
type copying struct {
	app     *app
	vm      string
	link    *guestlink.Link
	archive bool
	follow  bool
	user    string // whose files become of what is copied in, "" for root
}

// in copies a local path to the guest.
func (c *copying) in(ctx context.Context, source, destination string) error {
	what, err := localKind(source, c.follow)
	if err != nil {
		return banger.Wrap(err, "cannot copy %s", source)
	}
	if what == nothing {
		return banger.Errorf(banger.NotFound, "cannot copy %s: there is no such file or directory", source)
	}
	destination = rooted(destination)
	there, err := c.guestKind(ctx, destination)
	if err != nil {
		return err
	}
	var statErr error
	to, err := place(filepath.ToSlash(absolute(source)), what, destination, there, func(dir string) kind {
		k, err := c.guestKind(ctx, dir)
		statErr = errors.Join(statErr, err)
		return k
	})
	if err := errors.Join(statErr, err); err != nil {
		return err
	}
	tree := &packer{follow: c.follow}
	err = c.put(ctx, to.dir, func(w io.Writer) error { return tree.pack(w, source, to.name) })
	for _, skipped := range tree.skipped {
		c.app.warn("%s was left out: it is a socket", skipped)
	}
	return err
}

// streamIn unpacks a tar stream of ours in a directory of the guest.
func (c *copying) streamIn(ctx context.Context, destination string) error {
	return c.put(ctx, rooted(destination), func(w io.Writer) error {
		_, err := io.Copy(w, os.Stdin)
		return err
	})
}

// put sends what write writes. An error of our own side counts more than that
// the guest then found its stream cut off, and the guest's word more than that
// its stream could not be written on.
func (c *copying) put(ctx context.Context, dir string, write func(io.Writer) error) error {
	s, err := c.open(guestwire.KindPut, guestwire.Copy{Path: dir, KeepOwner: c.archive, User: c.user})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	// Nobody waits for this one: it may hang in reading stdin.
	go func() {
		to := s.Writer(guestwire.Stdin)
		w := &rememberingWriter{to: to}
		if err := write(w); err != nil && w.err == nil {
			failed <- err
			s.Reset() // half a copy must not look like a whole one
			return
		}
		_ = to.Close()
	}()
	_, err = s.Wait(ctx)
	select {
	case local := <-failed:
		err = local
	default:
	}
	return banger.Wrap(guestlink.Error(err), "cannot copy to %s", c.vm)
}

// out copies a path of the guest to a local one.
func (c *copying) out(ctx context.Context, source, destination string) error {
	source = rooted(source)
	what, err := c.guestKind(ctx, source)
	if err != nil {
		return err
	}
	if what == nothing {
		return banger.Errorf(banger.NotFound, "cannot copy %s:%s: there is no such file or directory", c.vm, source)
	}
	there, err := localKind(destination, true)
	if err != nil {
		return banger.Wrap(err, "cannot copy to %s", destination)
	}
	if real, err := filepath.EvalSymlinks(destination); err == nil && there == file {
		destination = real // a link of the user's own stays one
	}
	to, err := place(source, what, slashed(absolute(destination), destination), there, func(dir string) kind {
		k, _ := localKind(dir, true)
		return k
	})
	if err != nil {
		return err
	}
	return c.get(ctx, source, to.name, func(r io.Reader) error {
		return unpack(r, to, c.archive)
	})
}

// streamOut writes a tar stream of a path of the guest to stdout.
func (c *copying) streamOut(ctx context.Context, source string) error {
	if c.app.tty.out {
		return badUsage("cannot write a tar stream to the terminal").
			Hint("banger cp %s:%s - > FILE.tar", c.vm, source)
	}
	source = rooted(source)
	name := ""
	if contentsOnly(source) {
		name = "."
	}
	return c.get(ctx, source, name, func(r io.Reader) error {
		_, err := io.Copy(os.Stdout, r)
		return err
	})
}

// get reads a tar stream of the guest to its end. What our side complains of
// comes first: it is why the stream was given up.
func (c *copying) get(ctx context.Context, source, name string, read func(io.Reader) error) error {
	s, err := c.open(guestwire.KindGet, guestwire.Copy{Path: source, Name: name, KeepOwner: c.archive, Follow: c.follow})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.Reset)()
	from := s.Reader(guestwire.Stdin)
	readErr := read(from)
	var ours *banger.Error
	if readErr != nil && errors.As(readErr, &ours) {
		s.Reset()
		return readErr
	}
	_, _ = io.Copy(io.Discard, from)
	_, err = s.Wait(ctx)
	if err == nil {
		err = readErr
	}
	return banger.Wrap(guestlink.Error(err), "cannot copy from %s", c.vm)
}

func (c *copying) open(kind guestwire.Kind, request guestwire.Copy) (*guestwire.Stream, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	s, err := c.link.Conn().Open(kind, body)
	return s, guestlink.Error(err)
}

func (c *copying) guestKind(ctx context.Context, path string) (kind, error) {
	st, err := c.link.Stat(ctx, path)
	switch {
	case err != nil:
		return nothing, banger.Wrap(err, "cannot look at %s:%s", c.vm, path)
	case !st.Exists:
		return nothing, nil
	case st.Dir:
		return directory, nil
	}
	return file, nil
}

// localKind says what is at a local path.
func localKind(path string, follow bool) (kind, error) {
	stat := os.Lstat
	if follow || contentsOnly(path) {
		stat = os.Stat
	}
	info, err := stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nothing, nil
	case err != nil:
		return nothing, err
	case info.IsDir():
		return directory, nil
	}
	return file, nil
}

// absolute is a local path from the root, with the "/." at its end kept.
func absolute(p string) string {
	abs, err := filepath.Abs(p)
	if err != nil {
		abs = p
	}
	if contentsOnly(p) && abs != "/" {
		return abs + "/."
	}
	return abs
}

// slashed gives path the slash at the end that original had.
func slashed(path, original string) string {
	if original[len(original)-1] == '/' && path != "/" {
		return path + "/"
	}
	return path
}
