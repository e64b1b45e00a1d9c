package vnet

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"banger/internal/vnet/reach"
)

const (
	ethernetSize = 14
	lengthSize   = 4
	// maxFrame is the longest frame QEMU sends; what says it is longer is no frame.
	maxFrame = 4096 + 65536
	// maxBatch is how many frames go out with one write.
	maxBatch = 64
)

// readFrames hands every frame to deliver, which must not keep it, until r ends.
func readFrames(r io.Reader, f reach.Framing, deliver func([]byte)) error {
	if f == reach.Packets {
		return readPackets(r, deliver)
	}
	buffer, have := make([]byte, 4*maxFrame), 0
	for {
		n, err := r.Read(buffer[have:])
		have += n
		used := 0
		for have-used >= lengthSize {
			size := int(binary.BigEndian.Uint32(buffer[used:]))
			if size > maxFrame {
				return fmt.Errorf("a frame of %d bytes", size)
			}
			if have-used < lengthSize+size {
				break
			}
			deliver(buffer[used+lengthSize : used+lengthSize+size])
			used += lengthSize + size
		}
		have = copy(buffer, buffer[used:have])
		if err != nil {
			return err
		}
	}
}

func readPackets(r io.Reader, deliver func([]byte)) error {
	buffer := make([]byte, maxFrame)
	for {
		n, err := r.Read(buffer)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF // the other end of a pair of sockets is gone
		}
		deliver(buffer[:n])
	}
}

// batch is what one write sends: the frames of some packets of the stack.
type batch struct {
	headers []byte
	parts   net.Buffers
	flat    []byte
}

// write sends packets with the headers they lack. A frame that a packet socket
// does not take is lost, as frames may be; the descriptor itself is at its end if
// reading says so.
func (b *batch) write(w io.Writer, f reach.Framing, header func(*stack.PacketBuffer, []byte), pkts []*stack.PacketBuffer) error {
	if f == reach.Packets {
		for _, pkt := range pkts {
			b.flat = append(b.flat[:0], make([]byte, ethernetSize)...)
			header(pkt, b.flat)
			for _, part := range pkt.AsSlices() {
				b.flat = append(b.flat, part...)
			}
			_, _ = w.Write(b.flat)
		}
		return nil
	}
	if b.headers == nil {
		b.headers = make([]byte, maxBatch*(lengthSize+ethernetSize))
	}
	parts := b.parts[:0]
	for i, pkt := range pkts {
		h := b.headers[i*(lengthSize+ethernetSize):][:lengthSize+ethernetSize]
		binary.BigEndian.PutUint32(h, uint32(ethernetSize+pkt.Size()))
		header(pkt, h[lengthSize:])
		parts = append(parts, h)
		for _, part := range pkt.AsSlices() {
			if len(part) > 0 {
				parts = append(parts, part)
			}
		}
	}
	b.parts = parts // WriteTo moves its own copy of the slice forward
	_, err := parts.WriteTo(w)
	clear(b.parts)
	return err
}
