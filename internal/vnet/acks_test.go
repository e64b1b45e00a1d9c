package vnet

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// toGuest is a packet of a connection, as the stack makes it.
func toGuest(port uint16, ack uint32, flags header.TCPFlags, data string) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv4MinimumSize + header.TCPMinimumSize, Payload: buffer.MakeWithData([]byte(data)),
	})
	pkt.TransportProtocolNumber, pkt.NetworkProtocolNumber = header.TCPProtocolNumber, header.IPv4ProtocolNumber
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{
		SrcPort: 80, DstPort: port, AckNum: ack, Flags: flags, DataOffset: header.TCPMinimumSize,
	})
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{
		Protocol: uint8(header.TCPProtocolNumber), SrcAddr: toTCPIP(netip.MustParseAddr("192.0.2.1")), DstAddr: toTCPIP(guestAddr),
	})
	return pkt
}

func TestABareAcknowledgementWaitsForWhatSaysTheSame(t *testing.T) {
	const bare, data, end = header.TCPFlagAck, header.TCPFlagAck | header.TCPFlagPsh, header.TCPFlagAck | header.TCPFlagFin
	type sent struct {
		port  uint16
		ack   uint32
		flags header.TCPFlags
		data  string
	}
	for _, c := range []struct {
		name     string
		sent     []sent
		leave    []int // which of them left
		withheld int   // which still waits, -1 for none
	}{
		{"one waits", []sent{{1, 10, bare, ""}}, nil, 0},
		{"an answer says it too", []sent{{1, 10, bare, ""}, {1, 10, data, "hello"}}, []int{1}, -1},
		{"the end says it too", []sent{{1, 10, bare, ""}, {1, 11, bare, ""}, {1, 11, end, ""}}, []int{2}, -1},
		{"a later one says more", []sent{{1, 10, bare, ""}, {1, 20, bare, ""}}, nil, 1},
		{"of a stream every second leaves", []sent{{1, 10, bare, ""}, {1, 10 + smallAck, bare, ""}, {1, 10 + 2*smallAck, bare, ""}}, []int{1}, 2},
		{"numbers begin anew", []sent{{1, 1<<32 - 1, bare, ""}, {1, 3, end, ""}}, []int{1}, -1},
		{"the same again tells of a loss", []sent{{1, 10, bare, ""}, {1, 10, bare, ""}, {1, 10, bare, ""}}, []int{0, 1}, 2},
		{"what was sent before it goes out of turn", []sent{{1, 10, bare, ""}, {1, 5, data, "old"}}, []int{0, 1}, -1},
		{"another connection's answer does not", []sent{{1, 10, bare, ""}, {2, 10, data, "hello"}}, []int{1}, 0},
		{"another connection's takes its place", []sent{{1, 10, bare, ""}, {2, 10, bare, ""}}, []int{0}, 1},
		{"a reset acknowledges nothing", []sent{{1, 10, bare, ""}, {1, 0, header.TCPFlagRst, ""}}, []int{1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h heldAck
			var all []*stack.PacketBuffer
			var left []int
			for _, s := range c.sent {
				pkt := toGuest(s.port, s.ack, s.flags, s.data)
				all = append(all, pkt.IncRef()) // or the next would be the same memory
				for _, out := range h.hold(pkt) {
					left = append(left, slices.Index(all, out))
				}
			}
			if !slices.Equal(left, c.leave) {
				t.Errorf("%v left, not %v", left, c.leave)
			}
			if withheld := slices.Index(all, h.pkt); withheld != c.withheld {
				t.Errorf("%d waits, not %d", withheld, c.withheld)
			}
		})
	}
}

func TestABareAcknowledgementLeavesByItselfSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(Config{Guest: guestAddr, Gateway: gatewayAddr}, &counters{})
		defer l.Close()
		l.attach(straight{})
		defer l.detach()
		for range 2 {
			l.push(toGuest(1, 10, header.TCPFlagAck, ""))
			if _, got := l.pop(nil); len(got) != 0 {
				t.Errorf("%d left at once", len(got))
			}
			time.Sleep(ackDelay)
			synctest.Wait()
			if _, got := l.pop(nil); len(got) != 1 {
				t.Errorf("%d left after %s", len(got), ackDelay)
			}
		}
	})
}
