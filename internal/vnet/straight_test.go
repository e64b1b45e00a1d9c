package vnet

import (
	"encoding/binary"
	"net"
	"syscall"
	"testing"
	"time"

	"banger/internal/vnet/reach"
)

// straightLink is a link that writes to a cable of its own, and the cable's far end.
func straightLink(t *testing.T) (*link, net.Conn) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := fileConn(t, pair[0]), fileConn(t, pair[1])
	t.Cleanup(func() { near.Close(); far.Close() })
	l := testLink(t)
	l.attach(newStraight(near, reach.Stream))
	t.Cleanup(l.detach)
	return l, far
}

func TestSmallFrameWaitsForNobody(t *testing.T) {
	l, far := straightLink(t)
	l.push(outgoing(100))
	select {
	case <-l.wake:
		t.Error("the writer was woken")
	default:
	}
	frame := make([]byte, 4096)
	if err := far.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := far.Read(frame)
	if err != nil || n != lengthSize+ethernetSize+100 || binary.BigEndian.Uint32(frame) != ethernetSize+100 ||
		string(frame[lengthSize:][:6]) != string(l.guestMAC) {
		t.Errorf("got %d bytes, %x: %v", n, frame[:max(n, 0)], err)
	}
	if l.counters.framesOut.Load() != 1 {
		t.Error("it was not counted")
	}
}

func TestNoFramePassesOneThatWaits(t *testing.T) {
	l, _ := straightLink(t)
	l.push(outgoing(smallPacket + 1))
	l.push(outgoing(1))
	if _, got := l.pop(nil); len(got) != 2 || got[0].Size() != smallPacket+1 {
		t.Fatalf("%d waited", len(got))
	}
	l.push(outgoing(2)) // while those are being written
	if _, got := l.pop(nil); len(got) != 1 {
		t.Fatalf("%d waited", len(got))
	}
	l.pop(nil)
	l.push(outgoing(3))
	if _, got := l.pop(nil); len(got) != 0 {
		t.Error("it waits where nothing is before it")
	}
}

func TestFullCableHoldsNobodyUp(t *testing.T) {
	l, _ := straightLink(t)
	for range maxQueuedFrames / 2 {
		l.push(outgoing(smallPacket))
	}
	written := l.counters.framesOut.Load()
	if written == 0 || int(written)+len(l.queue) != maxQueuedFrames/2 || l.counters.queueFull.Load() != 0 {
		t.Errorf("%d written, %d wait, %d lost", written, len(l.queue), l.counters.queueFull.Load())
	}
}

func TestRestOfAFrameGoesBeforeTheNext(t *testing.T) {
	parts := [][]byte{[]byte("head"), []byte("ip"), []byte("data")}
	for n, want := range map[int]string{1: "eadipdata", 4: "ipdata", 7: "ata", 10: ""} {
		if got := string(after(parts, n)); got != want {
			t.Errorf("after %d: %q", n, got)
		}
	}
	l, _ := straightLink(t)
	l.rest = []byte("rest")
	l.push(outgoing(1))
	if rest, got := l.pop(nil); string(rest) != "rest" || len(got) != 1 {
		t.Errorf("%q, %d", rest, len(got))
	}
	l.push(outgoing(2)) // while it is being written
	if rest, got := l.pop(nil); rest != nil || len(got) != 1 {
		t.Errorf("%q, %d", rest, len(got))
	}
}
