// Package logfile is a log of bounded size: a file with one predecessor, which has ".1"
// appended to its name. It knows nothing of what is logged, or by whom.
package logfile

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// File is a log of bounded size. Where stdout or stderr were that log
// they follow it, so that a crash's last words stay in the newest file.
type File struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// Open opens the log at path, which begins anew whenever it would have more than max
// bytes.
func Open(path string, max int64) (*File, error) {
	l := &File{path: path, max: max}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer.
func (l *File) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(line)) > l.max {
		l.rotate()
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

// rotate begins a new file. Where that fails the old one grows on: a log too
// long is better than none.
func (l *File) rotate() {
	old := l.file
	err := os.Rename(l.path, l.path+".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) || l.open() != nil {
		l.size = 0 // try again after as much more
		return
	}
	for fd := 1; fd <= 2; fd++ {
		if sameFile(fd, int(old.Fd())) {
			_ = unix.Dup3(int(l.file.Fd()), fd, 0)
		}
	}
	old.Close()
}

// Close closes the log, and not what follows it.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
