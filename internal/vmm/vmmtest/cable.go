package vmmtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"banger/internal/vmm"
)

// The card every machine gets, and who is at the other end of its cable. Frames
// are larger than any Ethernet has, since that is what makes a card fast.
var (
	guestMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	hostMAC  = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
)

const guestMTU = 65520

// testKind marks the frames of the suite, among those of the guest's kernel.
const testKind = 0x88b5

func testFrame(size int) []byte {
	frame := binary.BigEndian.AppendUint16(append(append([]byte{}, guestMAC...), hostMAC...), testKind)
	return append(frame, bytes.Repeat([]byte{0xa5}, size)...)
}

// plug sends a frame to the guest.
func plug(t *testing.T, c *vmm.Cable, frame []byte) {
	t.Helper()
	if !c.Packets {
		frame = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	}
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// unplug takes the next frame of the suite's that the guest sent.
func unplug(t *testing.T, c *vmm.Cable) []byte {
	t.Helper()
	if d, ok := c.ReadWriteCloser.(interface{ SetDeadline(time.Time) error }); ok {
		if err := d.SetDeadline(time.Now().Add(answerLimit)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		frame, err := nextFrame(c)
		if err != nil {
			t.Fatalf("no frame came: %v", err)
		}
		if len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == testKind {
			return frame
		}
	}
}

func nextFrame(c *vmm.Cable) ([]byte, error) {
	if c.Packets {
		frame := make([]byte, 1<<17)
		n, err := c.Read(frame)
		return frame[:n], err
	}
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(c, frame)
	return frame, err
}

// wantFrames sends frames both ways.
func (g *guest) wantFrames(t *testing.T, sizes ...int) {
	t.Helper()
	for _, size := range sizes {
		if got := g.ask(t, "card send %s %s %d", hostMAC, guestMAC, size); got != "ok" {
			t.Fatal(got)
		}
		frame := unplug(t, g.Cable())
		if want := 14 + size; len(frame) != want || !bytes.Equal(frame[:6], hostMAC) || !bytes.Equal(frame[6:12], guestMAC) {
			t.Errorf("%d bytes came from %x to %x, want %d", len(frame), frame[6:12], frame[:6], want)
		}
		plug(t, g.Cable(), testFrame(size))
		if got, want := g.ask(t, "card receive"), fmt.Sprintf("%s %d true", hostMAC, size); got != want {
			t.Errorf("the guest received %q, want %q", got, want)
		}
	}
}

func (g *guest) testFrames(t *testing.T) { g.wantFrames(t, 60, 1500, guestMTU, 60) }

// testFrameFlood has the guest send more than a cable holds, and nobody take it.
func (g *guest) testFrameFlood(t *testing.T) {
	if got := g.ask(t, "card flood 5000 %s %s", hostMAC, guestMAC); got != "ok" {
		t.Fatal(got)
	}
	for n := range 5 {
		if got, want := g.ask(t, "echo still-%d", n), fmt.Sprintf("still-%d", n); got != want {
			t.Fatalf("answer %q, want %q", got, want)
		}
	}
	for range 50 { // and it goes on where somebody does
		unplug(t, g.Cable())
	}
}

// testNewCable has two machines on cables of their own that were one, whose cable
// was in use before it was saved.
func (h Harness) testNewCable(t *testing.T, g *guest, r rest) {
	child := h.restore(t, r)
	child.wantFrames(t, 1500, guestMTU)
	g.wantFrames(t, 1500)
}
