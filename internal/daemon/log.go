package daemon

import (
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
)

// maxLog is when the log begins anew; one predecessor is kept beside it.
const maxLog = 10 << 20

// logFile is a log of bounded size. Where stdout or stderr were that log
// they follow it, so that a crash's last words stay in the newest file.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string, max int64) (*logFile, error) {
	l := &logFile{path: path, max: max}
	if err := l.open(); err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot open the log %s: %w", path, reason(err))
	}
	return l, nil
}

func (l *logFile) open() error {
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
func (l *logFile) Write(line []byte) (int, error) {
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
func (l *logFile) rotate() {
	old := l.file
	if os.Rename(l.path, l.path+".1") != nil || l.open() != nil {
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

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
