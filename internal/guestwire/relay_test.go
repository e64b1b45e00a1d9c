package guestwire

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// mailbox is a connection whose writes never wait, as Relay asks for.
type mailbox struct {
	net.Conn
	mu    sync.Mutex
	more  sync.Cond
	queue []byte
	shut  bool
}

func newMailbox(c net.Conn) *mailbox {
	m := &mailbox{Conn: c}
	m.more.L = &m.mu
	go m.deliver()
	return m
}

func (m *mailbox) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, p...)
	m.more.Signal()
	return len(p), nil
}

func (m *mailbox) deliver() {
	for {
		m.mu.Lock()
		for len(m.queue) == 0 && !m.shut {
			m.more.Wait()
		}
		batch := m.queue
		m.queue = nil
		m.mu.Unlock()
		if _, err := m.Conn.Write(batch); err != nil || len(batch) == 0 {
			return
		}
	}
}

func (m *mailbox) Close() error {
	m.mu.Lock()
	m.shut = true
	m.more.Signal()
	m.mu.Unlock()
	return m.Conn.Close()
}

// dialThrough joins a client to a guest by relays; hold, if not nil, delays
// each until it is closed.
func dialThrough(t *testing.T, guest func(*Stream), hold chan struct{}, ended func(error)) (client, link *Conn) {
	t.Helper()
	link = dialEcho(t, guest)
	here, there := net.Pipe()
	go func() {
		_ = Serve(newMailbox(there), false, func(s *Stream) {
			if hold != nil {
				<-hold
			}
			err := link.Relay(s)
			if err != nil {
				s.Fail("unavailable", err.Error())
			}
			if ended != nil {
				ended(err)
			}
		})
	}()
	client, err := Dial(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, link
}

func TestRelayCarriesBytesControlsAndResult(t *testing.T) {
	got := make(chan Control, 1)
	client, _ := dialThrough(t, func(s *Stream) {
		if string(s.Body) != "request" {
			s.Fail("bad_request", "the body was lost")
			return
		}
		c, _ := s.NextControl()
		got <- c
		echo(s)
	}, nil, nil)
	s, err := client.Open(KindExec, []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Control(SignalControl(15)); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	go func() {
		w := s.Writer(Stdin)
		_, _ = w.Write(sent)
		_ = w.Close()
	}()
	back, err := io.ReadAll(s.Reader(Stdout))
	if err != nil || !bytes.Equal(back, sent) {
		t.Fatalf("%d bytes of %d came back: %v", len(back), len(sent), err)
	}
	body, err := s.Wait(t.Context())
	if exit, _ := ParseExit(body); err != nil || exit.Status != 7 {
		t.Fatalf("result %v, %v", exit, err)
	}
	if sig, ok := (<-got).Signal(); !ok || sig != 15 {
		t.Fatalf("signal %d", sig)
	}
}

func TestRelayHandsOverWhatCameBeforeIt(t *testing.T) {
	hold := make(chan struct{})
	client, _ := dialThrough(t, echo, hold, nil)
	s, err := client.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("x"), Window) // all that may be sent without credit
	w := s.Writer(Stdin)
	if _, err := w.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	close(hold)
	if back, err := io.ReadAll(s.Reader(Stdout)); err != nil || !bytes.Equal(back, sent) {
		t.Fatalf("%d bytes of %d came back: %v", len(back), len(sent), err)
	}
	if _, err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRelayedReaderThatStandsStillDelaysNoOther(t *testing.T) {
	client, _ := dialThrough(t, echo, nil, nil)
	stuck, err := client.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = stuck.Writer(Stdin).Write(make([]byte, 8*Window)) }()
	for range 3 {
		s, err := client.Open(KindExec, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			w := s.Writer(Stdin)
			_, _ = w.Write(make([]byte, 4*Window))
			_ = w.Close()
		}()
		if n, err := io.Copy(io.Discard, s.Reader(Stdout)); n != 4*Window || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	stuck.Reset()
}

func TestRelayAbandonsTheFarHalfWithTheNearOne(t *testing.T) {
	for name, leave := range map[string]func(*Conn, *Stream){
		"stream reset":    func(_ *Conn, s *Stream) { s.Reset() },
		"connection lost": func(c *Conn, _ *Stream) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			started, far, relayed := make(chan struct{}), make(chan error, 1), make(chan error, 1)
			client, _ := dialThrough(t, func(s *Stream) {
				close(started)
				<-s.Done()
				far <- s.Err()
			}, nil, func(err error) { relayed <- err })
			s, err := client.Open(KindExec, nil)
			if err != nil {
				t.Fatal(err)
			}
			<-started
			leave(client, s)
			if err := <-far; !errors.Is(err, ErrReset) {
				t.Fatalf("the far half ended with %v", err)
			}
			if err := <-relayed; err == nil {
				t.Fatal("the relay ended without an error")
			}
		})
	}
}

func TestRelaySaysThatTheFarHalfWasLost(t *testing.T) {
	started := make(chan struct{})
	client, link := dialThrough(t, func(s *Stream) { close(started); <-s.Done() }, nil, nil)
	s, err := client.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-started
	_ = link.Close()
	var f *Failure
	if _, err := s.Wait(context.Background()); !errors.As(err, &f) || f.Code != "unavailable" {
		t.Fatalf("got %v", err)
	}
}

func TestRelayRefusesMoreThanTheWindow(t *testing.T) {
	here, there := net.Pipe()
	go func() { // a guest that does not care about credit
		r, w := NewReader(there), NewWriter(there)
		_, _, _ = r.Next()
		_ = w.Write(TypeHello, Hello{Major, Minor, [TokenLen]byte{}}.append(nil), nil)
		_, open, _ := r.Next()
		head := append(append([]byte(nil), open[:4]...), Stdout)
		for w.Write(TypeData, head, make([]byte, MaxData)) == nil {
		}
	}()
	link, err := Dial(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	near, far := net.Pipe()
	go func() { _ = Serve(newMailbox(far), false, func(s *Stream) { _ = link.Relay(s) }) }()
	client, err := Dial(near, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Open(KindExec, nil); err != nil {
		t.Fatal(err)
	}
	<-link.Done()
	if !errors.Is(link.Err(), ErrProtocol) {
		t.Fatalf("the link ended with %v", link.Err())
	}
}
