package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// newUID is where the ids of people begin.
const newUID = 1000

// addUser makes a user in the system at root ("" is the real one), with a
// group of the same name and id and a home from /etc/skel. An id that is
// taken, or 0, becomes the next free one.
func addUser(root, name string, uid uint32) (user, error) {
	if !validUserName(name) {
		return user{}, failf("bad_request", "cannot make the user %q: a name has small letters, digits, - and _, and begins with a letter", name)
	}
	etc := root + "/etc"
	a := readAccounts(etc)
	id := strconv.FormatUint(uint64(a.freeID(uid)), 10)
	shell := "/bin/sh"
	if exists(root + "/bin/bash") {
		shell = "/bin/bash"
	}
	home := "/home/" + name
	err := errors.Join(
		addRecord(etc+"/group", 0o644, name+":x:"+id+":"),
		addRecord(etc+"/passwd", 0o644, strings.Join([]string{name, "x", id, id, "", home, shell}, ":")),
		addRecord(etc+"/shadow", 0o640, name+":*::0:99999:7:::"))
	if err != nil {
		return user{}, fmt.Errorf("cannot make the user %s: %w", name, err)
	}
	u, ok := readAccounts(etc).find(name)
	if !ok {
		return user{}, fmt.Errorf("cannot make the user %s", name)
	}
	if err := makeHome(etc+"/skel", root+home, u); err != nil {
		return user{}, fmt.Errorf("cannot make the home of the user %s: %w", name, err)
	}
	return u, nil
}

func validUserName(name string) bool {
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= 32
}

// freeID is wanted, if no user or group has it, else the next one that is
// free.
func (a accounts) freeID(wanted uint32) uint32 {
	taken := func(id uint32) bool {
		s := strconv.FormatUint(uint64(id), 10)
		has := func(f []string) bool { return f[2] == s }
		return record(a.passwd, 3, has) != nil || record(a.group, 3, has) != nil
	}
	if wanted != 0 && !taken(wanted) {
		return wanted
	}
	id := uint32(newUID)
	for taken(id) {
		id++
	}
	return id
}

// addRecord adds a line to a table, which stays whole whatever happens.
func addRecord(file string, mode os.FileMode, line string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	return replaceFile(file, append(old, line+"\n"...), mode)
}

// replaceFile writes a file in one step. One that is there keeps its mode and
// owner.
func replaceFile(file string, content []byte, mode os.FileMode) error {
	owner := [2]int{-1, -1}
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
		owner = ownerOf(info)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Chown(owner[0], owner[1]), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// makeHome copies the skeleton, which may be missing.
func makeHome(skel, home string, u user) error {
	if exists(home) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	err := filepath.WalkDir(skel, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == skel {
			return err
		}
		return copySkeleton(path, home+strings.TrimPrefix(path, skel), d, u)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Lchown(home, int(u.uid), int(u.gid))
}

func copySkeleton(from, to string, d fs.DirEntry, u user) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		err = os.Mkdir(to, info.Mode().Perm())
	case fs.ModeSymlink:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	case 0:
		err = copyFile(from, to, info.Mode().Perm())
	default:
		return nil
	}
	return errors.Join(err, os.Lchown(to, int(u.uid), int(u.gid)))
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
