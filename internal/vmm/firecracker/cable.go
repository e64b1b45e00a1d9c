package firecracker

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cable is the host's end of a card's cable: the packet socket, one frame to a read or
// write. It holds frames back while the machine is being saved, when none may get into its
// memory.
type cable struct {
	plugged chan struct{} // closed once there is a socket
	ended   chan struct{} // closed when there will be no more
	once    sync.Once
	socket  *os.File // valid after plugged

	sending sync.RWMutex // held for writing while frames are held back

	reading sync.Mutex
	in      []byte
	writing sync.Mutex
	out     []byte
}

// Each frame comes and goes behind what Linux calls a virtio_net_hdr: flags, the kind and
// parameters of segments, and where a checksum is to begin and to be put.
const (
	headerLen    = 10
	needChecksum = 1
	maxFrame     = 1<<16 + 1<<8
)

func newCable() *cable {
	return &cable{plugged: make(chan struct{}), ended: make(chan struct{})}
}

func (c *cable) plug(socket *os.File) error {
	c.socket = socket
	c.in, c.out = make([]byte, headerLen+maxFrame), make([]byte, headerLen, headerLen+maxFrame)
	close(c.plugged)
	return nil
}

// Read gives the next frame, whole. The end of the machine is the end of the cable.
func (c *cable) Read(p []byte) (int, error) {
	select {
	case <-c.plugged:
	case <-c.ended:
		return 0, os.ErrClosed
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.socket.Read(c.in)
	if err != nil {
		return 0, err
	}
	if n < headerLen {
		return 0, nil
	}
	frame := c.in[headerLen:n]
	finish(c.in[:headerLen], frame)
	return copy(p, frame), nil
}

// Write sends a frame. One for which the card has no room is lost, as on any cable.
func (c *cable) Write(frame []byte) (int, error) {
	select {
	case <-c.plugged:
	case <-c.ended:
		return 0, os.ErrClosed
	}
	c.sending.RLock()
	defer c.sending.RUnlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out = append(c.out[:headerLen], frame...)
	_, err := c.socket.Write(c.out)
	if errors.Is(err, unix.ENOBUFS) {
		err = nil
	}
	return len(frame), err
}

// SetDeadline is net.Conn's.
func (c *cable) SetDeadline(t time.Time) error {
	select {
	case <-c.plugged:
		return c.socket.SetDeadline(t)
	default:
		return os.ErrNoDeadline
	}
}

// Close ends the cable.
func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.ended)
		select {
		case <-c.plugged:
			_ = c.socket.Close()
		default:
		}
	})
	return nil
}

// heldUp is how long a frame may be on its way.
const heldUp = 100 * time.Millisecond

// hold lets no frame in until the result is called. One that is on its way and that nobody
// takes is given up.
func (c *cable) hold() (release func()) {
	given := make(chan struct{})
	late := time.AfterFunc(heldUp, func() {
		_ = c.socket.SetWriteDeadline(time.Unix(1, 0))
		close(given)
	})
	c.sending.Lock()
	if !late.Stop() {
		<-given // or the next frames would be given up too
	}
	_ = c.socket.SetWriteDeadline(time.Time{})
	return c.sending.Unlock
}

// finish does what a guest left to its card: the checksum of a frame of which it has computed
// that of the addresses. A frame of several segments is a large one of one.
func finish(header, frame []byte) {
	if header[0]&needChecksum == 0 {
		return
	}
	start, offset := int(binary.LittleEndian.Uint16(header[6:])), int(binary.LittleEndian.Uint16(header[8:]))
	if start > len(frame) || start+offset+2 > len(frame) {
		return // no frame of anybody's
	}
	sum := ^checksum(frame[start:])
	if sum == 0 {
		sum = 0xffff // as UDP wants it, and the same to the others
	}
	binary.BigEndian.PutUint16(frame[start+offset:], sum)
}

// checksum is the one's complement sum of 16-bit words.
func checksum(b []byte) uint16 {
	var sum uint64
	for ; len(b) >= 8; b = b[8:] {
		n := binary.BigEndian.Uint64(b)
		if sum += n; sum < n {
			sum++
		}
	}
	var rest [8]byte
	copy(rest[:], b)
	n := binary.BigEndian.Uint64(rest[:])
	if sum += n; sum < n {
		sum++
	}
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}
