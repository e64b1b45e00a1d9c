package vnet

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"banger/internal/vnet/reach"
	"banger/internal/vnet/ways"
)

func streamOf(frames ...string) []byte {
	var b []byte
	for _, f := range frames {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

func TestFramesAreToldApartHoweverTheyArrive(t *testing.T) {
	long := strings.Repeat("x", maxFrame)
	want := []string{"first", "", long, long, long, long, long, "last"}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(streamOf(want...)), "by bytes": iotest.OneByteReader(bytes.NewReader(streamOf(want...))),
		"with the end": iotest.DataErrReader(bytes.NewReader(streamOf(want...))),
	} {
		var got []string
		if err := readFrames(r, reach.Stream, func(f []byte) { got = append(got, string(f)) }); err != io.EOF {
			t.Error(name, err)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %d frames", name, len(got))
		}
	}
	impossible := binary.BigEndian.AppendUint32(nil, maxFrame+1)
	if err := readFrames(bytes.NewReader(impossible), reach.Stream, nil); err == nil || !strings.Contains(err.Error(), "a frame of 69633 bytes") {
		t.Error(err)
	}
}

func testLink(t testing.TB) *link {
	c, err := Config{Guest: guestAddr, Gateway: gatewayAddr, Dialer: &world{}, Resolver: &zone{}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	return newLink(c, &counters{})
}

func outgoing(size int) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, size))})
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	return pkt
}

func TestQueueDropsWhatAGuestIsTooSlowFor(t *testing.T) {
	l := testLink(t)
	l.push(outgoing(100))
	if _, got := l.pop(nil); len(got) != 0 || l.counters.queueFull.Load() != 0 {
		t.Error("a frame for nobody was kept")
	}
	l.attach(straight{})
	for range 2 * maxQueuedFrames {
		l.push(outgoing(100))
	}
	if len(l.queue) != maxQueuedFrames || l.counters.queueFull.Load() != maxQueuedFrames {
		t.Errorf("%d queued, %d dropped", len(l.queue), l.counters.queueFull.Load())
	}
	l.attach(straight{})
	for range 2 * maxQueuedBytes / 65536 {
		l.push(outgoing(65536))
	}
	if l.queued != maxQueuedBytes {
		t.Errorf("%d bytes queued", l.queued)
	}
	if _, got := l.pop(nil); len(got) != maxBatch || l.queued != 0 {
		t.Errorf("%d popped, %d bytes left", len(got), l.queued)
	}
}

func TestBatchIsWrittenFrameByFrame(t *testing.T) {
	l := testLink(t)
	pkts := []*stack.PacketBuffer{outgoing(10), outgoing(1500)}
	for _, f := range []reach.Framing{reach.Stream, reach.Packets} {
		var out bytes.Buffer
		var b batch
		for range 2 { // the batch is used again
			if err := b.write(&out, f, l.header, pkts); err != nil {
				t.Fatal(err)
			}
		}
		if f == reach.Packets {
			if out.Len() != 2*(24+1514) || !bytes.HasPrefix(out.Bytes(), append(reach.GuestMAC, reach.GatewayMAC...)) {
				t.Errorf("%d bytes", out.Len())
			}
			continue
		}
		var sizes []int
		_ = readFrames(&out, reach.Stream, func(frame []byte) {
			sizes = append(sizes, len(frame))
			if !bytes.HasPrefix(frame, append(append(bytes.Clone(reach.GuestMAC), reach.GatewayMAC...), 8, 0)) {
				t.Errorf("%x", frame[:14])
			}
		})
		if len(sizes) != 4 || sizes[0] != 24 || sizes[3] != 1514 {
			t.Error(sizes)
		}
	}
}

// Whatever a guest puts on the cable, what reaches the stack is an IPv4 packet of
// its own to an address that is somebody's.
func FuzzFrames(f *testing.F) {
	f.Add(ways.RawSYN("192.0.2.1", 80))
	f.Add(ways.Ping("10.77.0.1", "x"))
	f.Add(ways.Neighbour(guestAddr.String(), gatewayAddr.String(), reach.GuestMAC))
	f.Add(ways.Sixth("2001:db8::1"))
	f.Add(ways.Packet{To: "192.0.2.1", Protocol: 17, Payload: ways.Datagram(53, "x"), More: true}.Frame())
	f.Fuzz(func(t *testing.T, frame []byte) {
		l := testLink(t)
		l.attach(straight{})
		sink := &sink{t: t}
		l.Attach(sink)
		l.deliver(frame)
		_, pkts := l.pop(nil)
		for _, pkt := range pkts {
			if pkt.NetworkProtocolNumber != header.ARPProtocolNumber {
				t.Error("something else than an ARP reply was sent")
			}
		}
		c := l.counters.read()
		dropped := c.IPv6 + c.Spoofed + c.Broadcast + c.Stray + c.Martian + c.Malformed + c.OtherProtocol
		if dropped > 1 || dropped == 1 && sink.got != 0 {
			t.Errorf("%+v, %d delivered", c, sink.got)
		}
	})
}

type sink struct {
	stack.NetworkDispatcher
	t   *testing.T
	got int
}

func (s *sink) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	s.got++
	b := pkt.ToView().AsSlice()
	h := header.IPv4(b)
	to := fromTCPIP(h.DestinationAddress())
	if len(b) < 20 || int(h.TotalLength()) != len(b) || h.HeaderLength() != 20 || fromTCPIP(h.SourceAddress()) != guestAddr ||
		to.IsLoopback() || to.IsMulticast() || to.IsUnspecified() || to == guestAddr {
		s.t.Errorf("%x reached the stack", b)
	}
}
