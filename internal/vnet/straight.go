package vnet

import (
	"encoding/binary"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"banger/internal/vnet/reach"
)

// smallPacket is what is written at once where nothing is before it. Larger ones
// have company, and many go with one write.
const smallPacket = 2 << 10

// straight writes a small frame without waiting for a cable that is full. To wake
// somebody for each costs more than to write it: an answer would be that much later.
type straight struct {
	raw     syscall.RawConn // nil: there is no way to write without waiting
	framing reach.Framing
	head    [lengthSize + ethernetSize]byte
	parts   [][]byte
}

func newStraight(cable io.Writer, f reach.Framing) straight {
	s := straight{framing: f}
	if c, ok := cable.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

// write says whether the frame is on its way, and what of it is not yet.
func (s *straight) write(pkt *stack.PacketBuffer, header func(*stack.PacketBuffer, []byte)) (rest []byte, ok bool) {
	size := pkt.Size()
	if s.raw == nil || size > smallPacket {
		return nil, false
	}
	head := s.head[:]
	binary.BigEndian.PutUint32(head, uint32(ethernetSize+size))
	header(pkt, head[lengthSize:])
	if s.framing == reach.Packets {
		head = head[lengthSize:]
	}
	s.parts = append(s.parts[:0], head)
	for _, part := range pkt.AsSlices() {
		if len(part) > 0 {
			s.parts = append(s.parts, part)
		}
	}
	defer func() { clear(s.parts) }()
	sent := 0
	err := s.raw.Write(func(fd uintptr) bool {
		sent, _ = unix.SendmsgBuffers(int(fd), s.parts, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true // what it does not take now waits for the writer
	})
	if err != nil || sent <= 0 {
		return nil, false
	}
	return after(s.parts, sent), true
}

// after is a copy of what follows the first n bytes of parts, nil for nothing.
func after(parts [][]byte, n int) (rest []byte) {
	for _, part := range parts {
		skip := min(n, len(part))
		rest, n = append(rest, part[skip:]...), n-skip
	}
	return rest
}
