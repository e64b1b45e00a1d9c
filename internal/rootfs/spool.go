package rootfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// spooled is a file without a name that a stream is kept in, without its
// zeros: a stream of zeros is no way to fill a disk.
type spooled struct {
	f   *os.File
	pos int64
}

func spool(dir string) (*spooled, error) {
	f, err := os.CreateTemp(dir, ".tmp-layer-*")
	if err != nil {
		return nil, err
	}
	return &spooled{f: f}, os.Remove(f.Name())
}

var zeros [64 << 10]byte

func (s *spooled) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		chunk := p[done:min(done+len(zeros), len(p))]
		if !bytes.Equal(chunk, zeros[:len(chunk)]) {
			if _, err := s.f.WriteAt(chunk, s.pos); err != nil {
				return done, err
			}
		}
		s.pos += int64(len(chunk))
		done += len(chunk)
	}
	return len(p), nil
}

func (s *spooled) finish() error { return s.f.Truncate(s.pos) }

// boundedReader reads from r until all readers of one count have reached a
// limit.
type boundedReader struct {
	r     io.Reader
	read  *int64
	limit int64
	over  error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if *b.read += int64(n); *b.read > b.limit {
		b.over = fmt.Errorf("the layers unpack to more than %d bytes", b.limit)
		return 0, b.over
	}
	return n, err
}
