package shim

import (
	"net"
	"testing"
	"time"

	"banger/internal/guestwire"
)

// deafRig is a shim whose guest takes nothing in any more once it was asked for something,
// with little patience.
func deafRig(t *testing.T, l Launch) *rig {
	t.Helper()
	d := &scripted{deaf: make(chan struct{})}
	d.agent = func(*guestwire.Stream) { close(d.deaf) }
	r := newRig(t, d, l)
	r.shim.mu.Lock()
	r.shim.patience = time.Millisecond
	r.shim.mu.Unlock()
	return r
}

// client is one more client.
func (r *rig) client(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fillUp has a client send the guest more than that and the shim take.
func (r *rig) fillUp(t *testing.T, c *Client) {
	t.Helper()
	s, err := c.Conn().Open(guestwire.KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-r.driver.deaf
	if _, err := s.Writer(guestwire.Stdin).Write(make([]byte, guestwire.Window/4*3)); err != nil {
		t.Fatal(err)
	}
}

func TestClientThatLeavesAGuestThatTakesNothingInIsNoticed(t *testing.T) {
	r := deafRig(t, testLaunch())
	c := r.client(t)
	r.fillUp(t, c)
	_ = c.Close()
	r.awaitStreams(t, 0)
}

func TestEphemeralVMWhoseGuestTakesNothingInEndsWithItsOwner(t *testing.T) {
	l := testLaunch()
	l.Ephemeral = true
	r := deafRig(t, l)
	c := r.client(t)
	if err := c.Own(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.fillUp(t, c)
	_ = c.Close()
	r.await(t, r.is(Ended))
	if e := r.recorded(t); e.Reason != ReasonOwnerGone {
		t.Fatalf("recorded %+v", e)
	}
}

func TestClientThatWaitsForAGuestThatTakesNothingInIsKept(t *testing.T) {
	r := deafRig(t, testLaunch())
	c := r.client(t)
	r.fillUp(t, c)
	select {
	case <-c.Conn().Done():
		t.Fatal(c.Conn().Err())
	case <-time.After(50 * time.Millisecond): // it was looked after many times
	}
	if s, err := r.Status(t.Context()); err != nil || s.Streams != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestClientThatEndsItsHalfIsStillThere(t *testing.T) {
	o, far := socketPair(t)
	w := watch(o, time.Hour)
	if err := far.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if w.gone() {
		t.Error("it is taken for gone")
	}
	_ = far.Close()
	if !w.gone() {
		t.Error("it is gone, and that is not seen")
	}
}
