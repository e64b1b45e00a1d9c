package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, guestwire.MaxData); return &b }}

// output carries what a command writes to one channel of its stream.
type output struct {
	channel uint8
	from    *os.File
	to      io.WriteCloser
	done    chan struct{} // closed when nothing more comes
}

// copy copies until the end, and closes our end of the pipe: a command that
// writes on when nobody reads gets SIGPIPE.
func (o *output) copy(ended chan<- *output) {
	defer func() {
		_ = o.from.Close()
		close(o.done)
		ended <- o
	}()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := o.from.Read(*buf)
		if n > 0 {
			if _, err := o.to.Write((*buf)[:n]); adrift(err) {
				_, _ = io.Copy(io.Discard, o.from)
				return
			} else if err != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.rest(*buf)
			return
		}
		if err != nil {
			return
		}
	}
}

// hurry makes copy end although others hold the pipe open: it sends what the
// pipe holds and no more.
func (o *output) hurry() { _ = o.from.SetReadDeadline(time.Unix(1, 0)) }

func (o *output) rest(buf []byte) {
	left := o.held()
	if left <= 0 || o.from.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for left > 0 {
		n, err := o.from.Read(buf[:min(left, len(buf))])
		if n > 0 {
			_, werr := o.to.Write(buf[:n])
			err = errors.Join(err, werr)
		}
		if err != nil {
			return
		}
		left -= n
	}
}

// held is how many bytes wait in the pipe.
func (o *output) held() (n int) {
	raw, err := o.from.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil {
		return 0
	}
	return n
}
