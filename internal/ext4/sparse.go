package ext4

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// WriteSparse writes what r holds to a new file, its zeros as holes.
func WriteSparse(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sparse := &sparseFile{f: f}
	if _, err := io.CopyBuffer(struct{ io.Writer }{sparse}, r, make([]byte, 1<<20)); err != nil {
		return err
	}
	return errors.Join(sparse.finish(), f.Sync(), f.Close())
}

// sparseFile turns zeros written behind the end of a new file into holes, so
// that neither the file system's padding nor large sparse files in it cost
// blocks on the host.
type sparseFile struct {
	f   *os.File
	end int64 // everything from here on was never written
}

var zeros [64 << 10]byte

func (s *sparseFile) Write(p []byte) (int, error) {
	pos, err := s.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	written := 0
	for written < len(p) {
		chunk := p[written:min(written+len(zeros), len(p))]
		if pos >= s.end && bytes.Equal(chunk, zeros[:len(chunk)]) {
			_, err = s.f.Seek(int64(len(chunk)), io.SeekCurrent)
		} else {
			_, err = s.f.Write(chunk)
		}
		if err != nil {
			return written, err
		}
		written += len(chunk)
		pos += int64(len(chunk))
		s.end = max(s.end, pos)
	}
	return written, nil
}

func (s *sparseFile) Read(p []byte) (int, error) { return s.f.Read(p) }

func (s *sparseFile) Seek(offset int64, whence int) (int64, error) {
	return s.f.Seek(offset, whence)
}

// finish gives the file its full length: a hole at the end has none yet.
func (s *sparseFile) finish() error {
	info, err := s.f.Stat()
	if err != nil || info.Size() >= s.end {
		return err
	}
	return s.f.Truncate(s.end)
}
