package sshconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// What stands around our line in the user's file.
const (
	fenceBegin = "# >>> banger: NAME.vm reaches a VM; banger ssh-config --uninstall removes this"
	fenceEnd   = "# <<< banger"
	fenceAlone = " (and this file)" // ends fenceBegin in a file that was not there before
)

// File is a user's ssh configuration.
type File struct {
	Path    string // as the user calls it: it may be a symlink, or not be there
	Include string // the file that is to be included
}

// Of is the configuration that ssh reads for a user with this home.
func Of(home, include string) File {
	return File{Path: filepath.Join(home, ".ssh", "config"), Include: include}
}

// Installed says whether our fence is in the file, and whether the file begins
// with it as Install would write it.
func (f File) Installed() (found, first bool, err error) {
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	before, fence, _ := cut(text)
	return fence != nil, fence != nil && len(before) == 0 && bytes.Contains(fence, []byte(f.line())), err
}

// Includes says whether our fence is in the file, wherever, and includes f.Include.
func (f File) Includes() (bool, error) {
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	_, fence, _ := cut(text)
	return bytes.Contains(fence, []byte(f.line())), err
}

func (f File) line() string { return "Include " + quote(f.Include) + "\n" }

// Install puts the fence at the top: what stands in a Host block counts for that
// host alone, and ssh takes the first value it finds.
func (f File) Install() error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return err
	}
	text, err := os.ReadFile(f.Path)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return err
	}
	before, fence, after := cut(text)
	begin := fenceBegin
	if absent || bytes.Contains(fence, []byte(fenceAlone)) {
		begin += fenceAlone
	}
	return f.replace([]byte(begin+"\n"+f.line()+fenceEnd+"\n"), before, after)
}

// Uninstall takes the fence out. Everything else is left as it is, byte for
// byte; a file that Install made, and nobody wrote to, goes.
func (f File) Uninstall() error {
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, fence, after := cut(text)
	switch {
	case fence == nil:
		return nil
	case len(before)+len(after) == 0 && bytes.Contains(fence, []byte(fenceAlone)):
		path, err := followed(f.Path)
		if err != nil {
			return err
		}
		return os.Remove(path)
	}
	return f.replace(before, after)
}

// cut finds the fence, whole lines.
func cut(text []byte) (before, fence, after []byte) {
	begin := bytes.Index(text, []byte(fenceBegin))
	if begin < 0 || begin > 0 && text[begin-1] != '\n' {
		return text, nil, nil
	}
	end := bytes.Index(text[begin:], []byte(fenceEnd+"\n"))
	if end < 0 {
		return text, nil, nil
	}
	end += begin + len(fenceEnd) + 1
	return text[:begin], text[begin:end], text[end:]
}

// mostLinks is how many links in a row the kernel follows.
const mostLinks = 40

// followed is the file that a path leads to, which need not be there. Of a directory
// that is a link the one above is above what it leads to, so nothing is joined before
// directories are real, nor is anything cleaned.
func followed(path string) (string, error) {
	for range mostLinks {
		dir, name := filepath.Split(path)
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", fmt.Errorf("cannot write %s: %w", path, err)
		}
		path = filepath.Join(dir, name)
		to, err := os.Readlink(path)
		if err != nil { // it is no link
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = dir + "/" + to
		}
		path = to
	}
	return "", fmt.Errorf("cannot write %s: it is a link to itself", path)
}

// replace writes the file over in one step. A link stays one, and the file it
// leads to keeps its mode.
func (f File) replace(parts ...[]byte) error {
	mode := fs.FileMode(0o600)
	path, err := followed(f.Path)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	text := bytes.Join(parts, nil)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".config-banger-*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
