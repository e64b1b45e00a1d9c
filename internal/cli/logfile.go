package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// followEvery is how often a followed log is looked at.
const followEvery = 100 * time.Millisecond

// logFile reads a log that is rotated: its predecessor has ".1" appended.
type logFile struct {
	path string
	f    *os.File // where reading goes on; nil while there is none
}

// openLog opens the log at path, which need not exist yet.
func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	f, err := os.Open(path)
	if err == nil {
		l.f = f
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l, nil
}

func (l *logFile) close() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

// copyTo writes what was not yet read.
func (l *logFile) copyTo(w io.Writer) error {
	if l.f == nil {
		return nil
	}
	_, err := io.Copy(w, l.f)
	return err
}

// history writes what there is, the predecessor's text included: the last
// lines of it, or all with lines below 0. Both files are bounded.
func (l *logFile) history(w io.Writer, lines int) error {
	old, err := os.ReadFile(l.path + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := bytes.NewBuffer(old)
	if l.f != nil {
		if _, err := io.Copy(text, l.f); err != nil {
			return err
		}
	}
	last := text.Bytes()
	if lines >= 0 {
		last = lastLines(last, lines)
	}
	_, err = w.Write(last)
	return err
}

// lastLines is the end of text, n lines of it.
func lastLines(text []byte, n int) []byte {
	at := len(bytes.TrimSuffix(text, []byte("\n")))
	if n == 0 {
		return nil
	}
	for ; n > 0; n-- {
		at = bytes.LastIndexByte(text[:at], '\n')
		if at < 0 {
			return text
		}
	}
	return text[at+1:]
}

// wait waits for more: until the file has grown or was rotated, or done is
// closed. It looks instead of being told, as logs change without us.
func (l *logFile) wait(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if l.more() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return nil
		case <-tick.C:
		}
	}
}

// more says whether there is something to read. Having read a rotated file to
// its end, it goes on with the new one.
func (l *logFile) more() bool {
	if l.f != nil {
		at, err1 := l.f.Seek(0, io.SeekCurrent)
		info, err2 := l.f.Stat()
		if err1 != nil || err2 != nil || info.Size() > at {
			return true
		}
		if now, err := os.Stat(l.path); err != nil || os.SameFile(now, info) {
			return false
		}
	}
	next, err := os.Open(l.path)
	if err != nil {
		return false
	}
	l.close()
	l.f = next
	return true
}
