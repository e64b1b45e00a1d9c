package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// spooled is a file without a name that a stream is kept in, without its
// zeros: a stream of zeros is no way to fill a disk. It can be read while it
// grows.
type spooled struct {
	f *os.File

	mu    sync.Mutex
	grown sync.Cond
	pos   int64 // bytes of the stream so far
	ended error // why there will be no more, io.EOF for its end
	read  bool  // whoever followed it needs no more
	why   error // which that is, where it failed
}

func spool(dir string) (*spooled, error) {
	f, err := os.CreateTemp(dir, ".tmp-layer-*")
	if err != nil {
		return nil, err
	}
	s := &spooled{f: f}
	s.grown.L = &s.mu
	return s, os.Remove(f.Name())
}

var zeros [64 << 10]byte

// errUnwanted is what a stream meets that nobody follows any more.
var errUnwanted = errors.New("nobody wants the rest")

// Write keeps p, unless nobody is to read it: what comes behind the end of an
// archive only passes.
func (s *spooled) Write(p []byte) (int, error) {
	s.mu.Lock()
	pos, read, why := s.pos, s.read, s.why
	s.mu.Unlock()
	switch {
	case why != nil:
		return 0, errUnwanted
	case read:
		return len(p), nil
	}
	for done := 0; done < len(p); {
		chunk := p[done:min(done+len(zeros), len(p))]
		if !bytes.Equal(chunk, zeros[:len(chunk)]) {
			if _, err := s.f.WriteAt(chunk, pos); err != nil {
				return done, err
			}
		}
		pos += int64(len(chunk))
		done += len(chunk)
		s.grow(pos)
	}
	return len(p), nil
}

func (s *spooled) grow(pos int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos = pos
	s.grown.Broadcast()
}

// end says that the stream has ended, and why if it broke off.
func (s *spooled) end(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why == nil {
		why = s.f.Truncate(s.pos) // a hole at the end has no length yet
	}
	s.ended = why
	if why == nil {
		s.ended = io.EOF
	}
	s.grown.Broadcast()
	return why
}

// leave says that nobody follows the stream any more, and why if there was
// something wrong with it.
func (s *spooled) leave(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.why = true, why
}

// follower reads a stream while it is being kept. Contents that it need not
// see it leaps over.
type follower struct {
	s  *spooled
	at int64
}

func (f *follower) Read(p []byte) (int, error) {
	f.s.mu.Lock()
	for f.at >= f.s.pos && f.s.ended == nil {
		f.s.grown.Wait()
	}
	left, ended := f.s.pos-f.at, f.s.ended
	f.s.mu.Unlock()
	if left <= 0 {
		return 0, ended
	}
	p = p[:min(int64(len(p)), left)]
	n, err := f.s.f.ReadAt(p, f.at)
	if errors.Is(err, io.EOF) { // the hole that is not in the file yet
		clear(p[n:])
		n, err = len(p), nil
	}
	f.at += int64(n)
	return n, err
}

// Seek goes on from here, as archive/tar does, also behind what there is yet.
func (f *follower) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.ErrUnsupported
	}
	f.at += offset
	return f.at, nil
}

// boundedReader reads from r until all readers of one count have reached a
// limit.
type boundedReader struct {
	r     io.Reader
	read  *atomic.Int64
	limit int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.read.Add(int64(n)) > b.limit {
		return 0, fmt.Errorf("the layers unpack to more than %d bytes", b.limit)
	}
	return n, err
}
