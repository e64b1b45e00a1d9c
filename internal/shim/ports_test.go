package shim

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/loopback"
	"banger/internal/vmm"

	"golang.org/x/sys/unix"
)

// listening is an agent of a guest where something listens on loopback alone: it
// says so, and answers with the address that was asked for.
func listening(address string, silence <-chan struct{}) func(*guestwire.Stream) {
	return func(s *guestwire.Stream) {
		switch s.Kind {
		case guestwire.KindListeners:
			w := s.Writer(0)
			_ = guestwire.WriteListeners(w, []guestwire.Listener{{Address: netip.MustParseAddrPort(address), PID: 7, Process: "server"}})
			select {
			case <-silence:
				_ = guestwire.WriteListeners(w, nil)
			case <-s.Done():
			}
			<-s.Done()
		case guestwire.KindDial:
			target, _ := guestwire.ParseTarget(s.Body)
			_ = s.Control(guestwire.Control{Code: guestwire.ControlConnected})
			_, _ = s.Writer(0).Write([]byte(target.Address))
			_ = s.Writer(0).Close()
			_, _ = io.Copy(io.Discard, s.Reader(0))
			s.Finish(nil)
		default:
			echo(s)
		}
	}
}

// withPorts is a launch whose VM has addresses that no other has.
func withPorts(publish ...string) Launch {
	l := testLaunch()
	id := [16]byte([]byte(l.ID))
	l.Ports = &Ports{
		Address: netip.AddrFrom4([4]byte{127, 199, id[0], id[1]}), Prefix: "127.199", Owner: loopback.Owner(l.ID), Publish: publish,
	}
	return l
}

func awaitPorts(t *testing.T, c *Client, ok func([]banger.Port) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		list, err := c.Ports(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok(list) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ports stayed %+v", list)
		}
	}
}

func TestGuestsListenersAreForwardedWhileTheyAreThere(t *testing.T) {
	silence := make(chan struct{})
	l := withPorts()
	r := newRig(t, &scripted{agent: listening("127.0.0.1:8000", silence)}, l)
	at := netip.AddrPortFrom(l.Ports.Address, 8000).String()
	awaitPorts(t, r.Client, func(list []banger.Port) bool {
		return len(list) == 1 && list[0].URL == "http://"+at && list[0].Process == "server"
	})
	if s, err := r.Status(t.Context()); err != nil || s.Address != l.Ports.Address.String() {
		t.Errorf("the status has %q, %v", s.Address, err)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "127.0.0.1:8000" {
		t.Fatalf("got %q, %v", got, err)
	}
	r.awaitStreams(t, 1)
	close(silence)
	awaitPorts(t, r.Client, func(list []banger.Port) bool { return len(list) == 0 })
	if _, err := net.Dial("tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that is gone gives %v", err)
	}
}

func TestPrefixIsHeldAndPortsGoWithTheVM(t *testing.T) {
	id := banger.NewID()
	published := fmt.Sprintf("127.198.%d.%d:7999", id[0], id[1])
	l := withPorts(published + ":80")
	r := newRig(t, &scripted{agent: listening("127.0.0.1:8000", nil)}, l)
	at := netip.AddrPortFrom(l.Ports.Address, 8000).String()
	awaitPorts(t, r.Client, func(list []banger.Port) bool { return len(list) == 2 && list[1].URL == "http://"+at })
	prefix, _ := loopback.Parse(l.Ports.Prefix)
	if _, err := loopback.Usual.Hold(l.Ports.Owner, prefix, l.ID); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("the prefix is not held: %v", err)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := r.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	for _, address := range []string{at, published} {
		if _, err := net.Dial("tcp", address); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s gives %v", address, err)
		}
	}
	if f, err := loopback.Usual.Hold(l.Ports.Owner, prefix, l.ID); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
}

func TestTakenPortStartsNoMachine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	d := &scripted{agent: echo}
	opts := Options{Build: "test", Driver: func(string) (vmm.Driver, error) { return d, nil }, Network: testNetwork, Layers: testLayers}
	_, err = open(t.Context(), vmDir(t, withPorts(port+":80")), opts, slog.New(slog.DiscardHandler))
	if banger.CodeOf(err) != banger.Conflict || len(d.boots) != 0 {
		t.Fatalf("got %v and %d machines", err, len(d.boots))
	}
}

func TestAgentThatTellsNoListenersLeavesTheRest(t *testing.T) {
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) {
		if s.Kind == guestwire.KindListeners {
			s.Fail("unknown_method", "of an earlier build")
			return
		}
		echo(s)
	}}, withPorts())
	r.await(t, r.is(Running))
	for { // until it was asked
		_, err := r.Ports(t.Context())
		if err == nil {
			continue
		}
		if banger.CodeOf(err) != banger.UnknownMethod || len(banger.HintsOf(err)) == 0 {
			t.Errorf("got %v", err)
		}
		break
	}
	if out, _, err := run(t, r.Conn(), "hello"); err != nil || out != "hello" {
		t.Errorf("a command says %q, %v", out, err)
	}
}

func TestListenersAreAskedForAgainAfterAFailure(t *testing.T) {
	var asked atomic.Int32
	well := listening("127.0.0.1:8000", nil)
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) {
		if s.Kind == guestwire.KindListeners && asked.Add(1) == 1 {
			s.Fail("internal", "too many open files")
			return
		}
		well(s)
	}}, withPorts())
	r.await(t, r.is(Running))
	for deadline := time.Now().Add(time.Minute); ; {
		list, err := r.Ports(t.Context())
		if err == nil && len(list) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ports stayed %+v, %v", list, err)
		}
	}
}

func TestVMWithoutItsPrefixRunsWithoutAnAddress(t *testing.T) {
	l := withPorts()
	prefix, _ := loopback.Parse(l.Ports.Prefix)
	held, err := loopback.Usual.Hold(l.Ports.Owner, prefix, l.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	r := newRig(t, &scripted{agent: listening("127.0.0.1:8000", nil)}, l)
	if s := r.await(t, r.is(Running)); s.Address != "" {
		t.Errorf("its address is %s", s.Address)
	}
	awaitPorts(t, r.Client, func(list []banger.Port) bool { return len(list) == 1 && list[0].URL == "" && list[0].Reason != "" })
}
