package patch

import (
	"crypto/sha1" // git's name of a content, not a secret
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// look says what is at a path: a File with the name git would give its content,
// hashed as in like. A directory, or what git does not know, has no ID. Reading it
// never waits and never follows a link.
func (t *tree) look(p, like string) (File, error) {
	var found File
	err := t.in(p, func(dir int, name string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		var err error
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			found, err = lookAtFile(dir, name, like)
		case unix.S_IFLNK:
			found, err = lookAtLink(dir, name, like)
		default:
			found = File{Mode: Mode(st.Mode & unix.S_IFMT)}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	return found, err
}

func lookAtFile(dir int, name, like string) (File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return File{}, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{}, errors.New("it changed while it was read")
	}
	id, err := contentID(like, info.Size(), f)
	mode := Plain
	if info.Mode()&0o100 != 0 {
		mode = Executable
	}
	return File{mode, id}, err
}

func lookAtLink(dir int, name, like string) (File, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, target)
	if err != nil {
		return File{}, err
	}
	h := blobHash(like, int64(n))
	h.Write(target[:n])
	return File{Symlink, hex.EncodeToString(h.Sum(nil))}, nil
}

// contentID is git's name of a content of that size.
func contentID(like string, size int64, content io.Reader) (string, error) {
	h := blobHash(like, size)
	n, err := io.Copy(h, io.LimitReader(content, size+1))
	if err == nil && n != size {
		err = errors.New("it changed while it was read")
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func blobHash(like string, size int64) hash.Hash {
	h := sha1.New()
	if len(like) == 2*sha256.Size {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}
