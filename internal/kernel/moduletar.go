package kernel

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
)

// What the modules of an image may be.
const (
	maxModulesTar = maxAllModules // bytes
	maxModules    = 100_000       // files, and directories they are in
	maxPath       = 1024          // bytes of a name
	maxPart       = 255           // bytes of a part of one: file systems have no longer ones
	maxDepth      = 16            // parts of a name
)

// unpackModules writes the plain files of a tar below dir, none outside it and of at
// most that many entries. Links are left out: those of a kernel lead to its sources.
func unpackModules(ctx context.Context, from, dir string, most int) error {
	f, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return banger.Errorf(banger.BadRequest, "it is no image of a kernel: it has no /%s", imageModules)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(artifact.Reader(ctx, f))
	to := moduleDir{root: root}
	for left := int64(maxModulesTar); ; to.entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(err)
		}
		if left -= h.Size; to.entries > most || left < 0 {
			return banger.Errorf(banger.BadRequest, "its /%s has more than %d files or %d bytes", imageModules, most, int64(maxModulesTar))
		}
		name, err := moduleName(h.Name)
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := to.write(strings.TrimPrefix(name, "usr/"), in); err != nil {
			return err
		}
	}
}

// moduleName is where a file of the tar is to be.
func moduleName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case len(name) > maxPath || strings.Count(clean, "/") >= maxDepth:
		return "", banger.Errorf(banger.BadRequest, "its /%s has a name of more than %d bytes, or of more than %d parts: %.100q", imageModules, maxPath, maxDepth, name)
	case slices.ContainsFunc(strings.Split(clean, "/"), func(part string) bool { return len(part) > maxPart }):
		return "", banger.Errorf(banger.BadRequest, "its /%s has a name with a part of more than %d bytes: %.100q", imageModules, maxPart, name)
	case !filepath.IsLocal(clean):
		return "", banger.Errorf(banger.BadRequest, "its /%s has the file %q, which leads out of it", imageModules, name)
	}
	return clean, nil
}

func unreadable(err error) error {
	return banger.Errorf(banger.BadRequest, "its /%s cannot be read: %w", imageModules, err)
}

// moduleDir is a directory that is filled from a tar.
type moduleDir struct {
	root    *os.Root
	entries int
	last    string // directory that was written to
}

func (d *moduleDir) write(name string, r io.Reader) error {
	err := d.parents(path.Dir(name))
	var f *os.File
	if err == nil {
		f, err = d.root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) {
		return banger.Errorf(banger.BadRequest, "its /%s has one name for a file and a directory: %q", imageModules, name)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return unreadable(err)
	}
	return err
}

// parents makes a directory with those it is in. Each that is new is an entry, as if
// the tar had named it.
func (d *moduleDir) parents(dir string) error {
	if dir == d.last {
		return nil
	}
	for n := range len(dir) + 1 {
		if n < len(dir) && dir[n] != '/' {
			continue
		}
		switch err := d.root.Mkdir(dir[:n], 0o700); {
		case err == nil:
			d.entries++
		case !errors.Is(err, fs.ErrExist):
			return err
		}
	}
	d.last = dir
	return nil
}
