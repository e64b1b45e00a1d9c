package vm

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/config"
	"banger/internal/paths"
)

// writeSeed puts the user's files that every new VM gets into a tar stream, for
// the shim to unpack when the guest is first up. What is not there, and links
// inside directories, are left out with a warning.
func writeSeed(to string, files []config.FileSync, warn func(string)) (err error) {
	if len(files) == 0 {
		return nil
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fileError(err)
	}
	defer func() { err = errors.Join(err, fileError(f.Close())) }()
	s := seed{tar.NewWriter(f), warn}
	for i, file := range files {
		err := s.add(file)
		if errors.Is(err, fs.ErrNotExist) {
			warn(fmt.Sprintf("file_sync[%d]: %s is not there", i, file.Host))
		} else if err != nil {
			return banger.Wrap(syncError(file, to, err), "cannot copy file_sync[%d] into the VM", i)
		}
	}
	return fileError(s.tw.Close())
}

// syncError is why one entry of the configuration could not be copied to a stream:
// what it names cannot be read, unless it was the writing that failed.
func syncError(f config.FileSync, to string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) && at.Path == to {
		return fileError(err)
	}
	return banger.Errorf(banger.Unavailable, "cannot read %s: %w", f.Host, err).
		Hint("make it a file or a directory that you can read, or take its [[file_sync]] out of the configuration")
}

// giveSeed gives a copy of a VM, in whatever directory, the files that its own
// guest was not up to get. They are the same for as long as there are any.
func giveSeed(from, to paths.VM) error {
	err := os.Link(from.Seed(), to.Seed())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return fileError(err)
}

type seed struct {
	tw   *tar.Writer
	warn func(string)
}

// add adds one entry of the configuration. It may itself be a link.
func (s seed) add(f config.FileSync) error {
	info, err := os.Stat(f.Host)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(f.Guest, "/")
	if !info.IsDir() {
		return s.file(f.Host, name, f.Mode, 0)
	}
	top, err := filepath.EvalSymlinks(f.Host)
	if err != nil {
		return err
	}
	return filepath.WalkDir(top, func(local string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, local)
		if err != nil {
			return err
		}
		return s.inside(local, path.Join(name, rel), d)
	})
}

// inside adds what a directory has: files with the modes they have.
func (s seed) inside(local, name string, d fs.DirEntry) error {
	info, err := d.Info()
	switch {
	case err != nil:
		return err
	case d.IsDir():
		return s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()})
	case info.Mode().IsRegular():
		return s.file(local, name, info.Mode().Perm(), unix.O_NOFOLLOW)
	case info.Mode().Type() == fs.ModeSymlink:
		s.warn("file_sync: " + local + " was left out: it is a link")
	default:
		s.warn("file_sync: " + local + " was left out: it is no file")
	}
	return nil
}

func (s seed) file(local, name string, mode fs.FileMode, flags int) error {
	f, err := os.OpenFile(local, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", local)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(mode), ModTime: info.ModTime()}
	if err := s.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(s.tw, f, h.Size)
	return err
}
