package guestwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Type is the type of a frame.
type Type uint8

// The frame types.
const (
	TypeHello Type = iota + 1
	TypeOpen
	TypeData
	TypeEOF
	TypeCredit
	TypeControl
	TypeResult
	TypeReset
)

// ErrProtocol is the kind of every error caused by bytes that are not this
// wire.
var ErrProtocol = errors.New("not the banger guest wire")

// ErrResync is returned by Reader.Next when the peer started afresh: the
// token was found, and the next frame is the peer's HELLO.
var ErrResync = errors.New("the peer started afresh")

const headerLen = 4

// Reader reads frames. It is not safe for concurrent use.
type Reader struct {
	src   io.Reader
	buf   []byte // read and not yet consumed, buf[r:w]
	r, w  int
	token []byte // scanned for in everything read; nil scans nothing
	clean int    // buf[r:clean] holds no token, so that nothing is scanned twice
}

// NewReader reads frames from src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, 64<<10)}
}

// ScanFor makes the reader look for a peer that starts afresh with token.
func (r *Reader) ScanFor(token [TokenLen]byte) {
	r.token = token[:]
	r.clean = r.r
}

// SkipTo discards input until the token was read.
func (r *Reader) SkipTo(token [TokenLen]byte) error {
	r.ScanFor(token)
	found := r.scan()
	for !found {
		r.r = max(r.w-(TokenLen-1), r.r) // what could be the token's beginning
		r.makeRoom(len(r.buf))
		err := r.read()
		if found = errors.Is(err, ErrResync); err != nil && !found {
			return err
		}
	}
	return nil
}

// Next reads one frame. The payload is valid until the next call.
func (r *Reader) Next() (Type, []byte, error) {
	if err := r.fill(headerLen); err != nil {
		return 0, nil, err
	}
	typ, n := Type(r.buf[r.r]), int(uint24(r.buf[r.r+1:]))
	if typ < TypeHello || typ > TypeReset || n > MaxPayload {
		return 0, nil, fmt.Errorf("%w: frame type %d of %d bytes", ErrProtocol, typ, n)
	}
	if err := r.fill(headerLen + n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	payload := r.buf[r.r+headerLen : r.r+headerLen+n]
	r.r += headerLen + n
	return typ, payload, nil
}

// fill reads until n bytes are buffered.
func (r *Reader) fill(n int) error {
	if r.scan() {
		return ErrResync
	}
	for r.w-r.r < n {
		r.makeRoom(n)
		if err := r.read(); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom moves what is buffered to the front where n bytes would not fit,
// and enlarges the buffer for the rare large frame.
func (r *Reader) makeRoom(n int) {
	if r.r > 0 && (r.r == r.w || r.r+n > len(r.buf)) {
		copy(r.buf, r.buf[r.r:r.w])
		r.clean = max(r.clean-r.r, 0)
		r.w -= r.r
		r.r = 0
	}
	if n > len(r.buf) {
		r.buf = append(r.buf, make([]byte, n-len(r.buf))...)
	}
}

// read reads once. An error that came with bytes is left for the next call.
func (r *Reader) read() error {
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	switch {
	case r.scan():
		return ErrResync
	case n > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// scan looks for the token in what was just read and, having found it, drops
// everything up to its end.
func (r *Reader) scan() bool {
	if r.token == nil {
		return false
	}
	from := max(r.clean, r.r)
	if i := bytes.Index(r.buf[from:r.w], r.token); i >= 0 {
		r.r = from + i + TokenLen
		r.clean = r.r
		return true
	}
	r.clean = max(r.w-(TokenLen-1), r.r)
	return false
}

// Writer writes frames; it is safe for concurrent use and writes each frame
// whole.
type Writer struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
}

// NewWriter writes frames to dst.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// Write sends one frame whose payload is head followed by body.
func (w *Writer) Write(typ Type, head, body []byte) error {
	n := len(head) + len(body)
	if n > MaxPayload {
		return fmt.Errorf("cannot send %d bytes in one frame: at most %d", n, MaxPayload)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf[:0], byte(typ), byte(n>>16), byte(n>>8), byte(n))
	w.buf = append(append(w.buf, head...), body...)
	return w.flush()
}

// Restart writes the token raw and a HELLO in one piece.
func (w *Writer) Restart(token [TokenLen]byte, h Hello) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	payload := h.append(nil)
	w.buf = append(append(w.buf[:0], token[:]...), byte(TypeHello), 0, 0, byte(len(payload)))
	w.buf = append(w.buf, payload...)
	return w.flush()
}

func (w *Writer) flush() error {
	_, err := w.dst.Write(w.buf)
	if cap(w.buf) > 2*MaxData {
		w.buf = nil // a large OPEN or RESULT came by; do not keep its memory
	}
	return err
}

func uint24(b []byte) uint32 {
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}

// Hello begins a connection.
type Hello struct {
	Major, Minor uint16
	Token        [TokenLen]byte
}

var magic = []byte("bngr")

func (h Hello) append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, h.Major)
	b = binary.BigEndian.AppendUint16(b, h.Minor)
	return append(b, h.Token[:]...)
}

func parseHello(p []byte) (h Hello, err error) {
	if len(p) < 8+TokenLen || !bytes.Equal(p[:4], magic) {
		return h, fmt.Errorf("%w: bad HELLO", ErrProtocol)
	}
	h.Major, h.Minor = binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint16(p[6:])
	copy(h.Token[:], p[8:])
	return h, nil
}
