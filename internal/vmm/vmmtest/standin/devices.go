package standin

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// drive is a disk of the machine. What it is on the host is known by its path alone.
type drive struct {
	ID       string `json:"id"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"read_only"`

	mu   sync.Mutex
	file *os.File
	size int64 // as the guest was told
}

// open opens the file, or opens it again.
func (d *drive) open() error {
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(d.Path, flags, 0)
	if err != nil {
		return fmt.Errorf("cannot open the drive %s: %w", d.ID, err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file != nil {
		d.file.Close()
	}
	d.file, d.size = f, info.Size()
	return nil
}

func (d *drive) read(at int64, n int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := make([]byte, n)
	_, err := d.file.ReadAt(text, at)
	return text, err
}

func (d *drive) write(at int64, text []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ReadOnly {
		return unix.EROFS
	}
	_, err := d.file.WriteAt(text, at)
	return err
}

// card is a network card, whose other end is a TAP that is there.
type card struct {
	ID   string `json:"id"`
	Host string `json:"host"`

	tap    *os.File
	frames chan []byte // that came
}

// Each frame goes behind a header that says what is left to do; nothing is.
const (
	frameHeader = 10
	mostFrame   = 1 << 17
	waiting     = 256 // frames of which a card holds more
)

func (c *card) plugIn() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq(c.Host)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("cannot open the TAP %s: %w", c.Host, err)
	}
	c.tap, c.frames = os.NewFile(uintptr(fd), c.Host), make(chan []byte, waiting)
	go c.receive()
	return nil
}

func (c *card) receive() {
	for buffer := make([]byte, frameHeader+mostFrame); ; {
		n, err := c.tap.Read(buffer)
		if err != nil {
			return
		}
		if frame := buffer[min(n, frameHeader):n]; len(frame) < 14 || binary.BigEndian.Uint16(frame[12:]) != testKind {
			continue // the host's kernel's own
		}
		select {
		case c.frames <- append([]byte{}, buffer[min(n, frameHeader):n]...):
		default: // as a card does that nobody empties
		}
	}
}

func (c *card) send(frame []byte) error {
	_, err := c.tap.Write(append(make([]byte, frameHeader), frame...))
	return err
}
