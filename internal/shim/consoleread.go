package shim

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/paths"
)

// ConsoleTail gives the last n lines of a VM's console that have text, fit for
// a terminal.
func ConsoleTail(dir paths.VM, n int) ([]string, error) {
	r, err := OpenConsole(dir, false)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r) // bounded by twice the limit
	return lastLines(text[max(0, len(text)-consoleTail):], n), err
}

// OpenConsole reads a VM's console from the oldest byte that is kept. With
// follow it waits for more until the VM's shim has ended, across rotations;
// Close ends such a wait. A VM that never had a console has an empty one.
func OpenConsole(dir paths.VM, follow bool) (io.ReadCloser, error) {
	r := &consoleReader{path: dir.Console()}
	if follow {
		if err := r.follow(dir); err != nil {
			return nil, err
		}
	}
	if err := r.more(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

type consoleReader struct {
	path    string
	process *os.File // pidfd of the shim, or nil
	watcher sync.WaitGroup

	mu      sync.Mutex // not held while waiting
	closed  bool
	files   []*os.File // to be read, in this order; the last one is open for more
	changes *os.File   // inotify, or nil when nothing more is to come
}

// follow arranges to be woken by changes of the console and by the shim's end.
func (r *consoleReader) follow(dir paths.VM) error {
	id, alive, err := Alive(dir)
	if err != nil || !alive {
		return err
	}
	if r.process, err = id.open(); err != nil || r.process == nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	r.changes = os.NewFile(uintptr(fd), "inotify")
	// Of the directory only new files: its disk changes all the time.
	if err := r.watch(string(dir), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return err
	}
	changes, process := r.changes, r.process
	r.watcher.Go(func() {
		_ = ended(process)
		_ = changes.Close()
	})
	return nil
}

func (r *consoleReader) watch(path string, events uint32) error {
	raw, err := r.changes.SyscallConn()
	if err != nil {
		return err
	}
	var added error
	err = raw.Control(func(fd uintptr) { _, added = unix.InotifyAddWatch(int(fd), path, events) })
	return errors.Join(err, added)
}

func (r *consoleReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed {
			return 0, os.ErrClosed
		}
		if len(r.files) > 0 {
			n, err := r.files[0].Read(p)
			if n > 0 || !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		if len(r.files) > 1 {
			_ = r.files[0].Close()
			r.files = r.files[1:]
			continue
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
}

// next is called at the end of what there is. It finds the files that follow,
// or waits for something to happen; io.EOF means that nothing will.
func (r *consoleReader) next() error {
	if r.changes == nil {
		return io.EOF
	}
	if rotated, err := r.rotated(); err != nil {
		return err
	} else if rotated {
		return r.more()
	}
	return r.wait()
}

// wait returns when something may have changed. When the shim has ended it
// turns to reading once more to the end, which may be in newer files.
func (r *consoleReader) wait() error {
	changes := r.changes
	r.mu.Unlock()
	var events [4096]byte
	_, err := changes.Read(events[:])
	r.mu.Lock()
	if !errors.Is(err, os.ErrClosed) || r.closed {
		return err
	}
	r.changes = nil
	if rotated, err := r.rotated(); err != nil || !rotated {
		return err
	}
	return r.more()
}

// rotated says whether the log goes on in other files than those we have.
func (r *consoleReader) rotated() (bool, error) {
	st, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // in the middle of a rotation, or not yet written
	}
	if err != nil || len(r.files) == 0 {
		return err == nil, err
	}
	have, err := r.files[0].Stat()
	return err == nil && !os.SameFile(st, have), err
}

// more opens what follows the last file. That may have become the
// predecessor, or be gone already where the reader is slow: then a part is
// missing, but never twice there.
func (r *consoleReader) more() error {
	now, err := r.openCurrent()
	if err != nil || now == nil {
		return err
	}
	if before, err := os.Open(r.path + ".1"); err == nil {
		if r.has(before) || same(before, now) {
			_ = before.Close()
		} else {
			r.files = append(r.files, before)
		}
	}
	r.files = append(r.files, now)
	return nil
}

func (r *consoleReader) openCurrent() (*os.File, error) {
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && r.changes != nil {
		err = r.watch(r.path, unix.IN_MODIFY|unix.IN_MOVE_SELF)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrClosed) {
			err = nil // rotated away, or the shim ended, meanwhile: next looks again
		}
	}
	return f, err
}

func (r *consoleReader) has(f *os.File) bool {
	return len(r.files) > 0 && same(r.files[len(r.files)-1], f)
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// Close may be called while another goroutine reads, which then gets
// os.ErrClosed.
func (r *consoleReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.process != nil {
		_ = r.process.Close() // ends the watcher, which ends a waiting Read
		r.watcher.Wait()
	}
	for _, f := range r.files {
		_ = f.Close()
	}
	r.files = nil
	return nil
}
