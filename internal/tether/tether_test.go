package tether

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// line joins hosts to a guest by connections that can be cut.
type line struct {
	t     *testing.T
	mu    sync.Mutex
	guest *Stream
	host  *Stream
	last  net.Conn
	work  sync.WaitGroup
}

// keep has a host connect from now on, as long as it is the line's.
func (l *line) keep(host *Stream) {
	l.work.Go(func() {
		host.Keep(l.t.Context(), func(context.Context) (io.ReadWriteCloser, error) { return l.dial(host) })
	})
}

func (l *line) dial(host *Stream) (io.ReadWriteCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if host != l.host {
		return nil, errors.New("another host is at the line")
	}
	near, far, err := pair()
	if err != nil {
		return nil, err
	}
	l.last = near
	l.work.Go(func() { _ = l.guest.Serve(far) })
	return near, nil
}

// pair is a connection that holds a little, as those do that are meant.
func pair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	for i, end := range []*net.Conn{&near, &far} {
		f := os.NewFile(uintptr(fds[i]), "pair")
		if *end, err = net.FileConn(f); err != nil {
			return nil, nil, err
		}
		f.Close()
	}
	return near, far, nil
}

// cut breaks the connection, and puts another host at the end of the next.
func (l *line) cut(host *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host != host {
		l.host = host
		l.keep(host)
	}
	if l.last != nil {
		l.last.Close()
	}
}

func begin(t *testing.T) (*line, *Stream, *Stream) {
	t.Helper()
	host, guest := NewHost(), NewGuest()
	l := &line{t: t, guest: guest, host: host}
	l.keep(host)
	t.Cleanup(func() {
		guest.Close()
		l.mu.Lock()
		l.host.Close()
		l.mu.Unlock()
		host.Close()
		l.work.Wait()
	})
	return l, host, guest
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestNothingIsLostOrSentTwiceWhereConnectionsBreak(t *testing.T) {
	l, host, guest := begin(t)
	const size = 5 << 20
	var work sync.WaitGroup
	for n, ends := range [][2]*Stream{{host, guest}, {guest, host}} {
		want := noise(uint64(n), size)
		work.Go(func() { _, _ = ends[0].Write(want) })
		work.Go(func() {
			got := make([]byte, size)
			for at := 0; at < size; {
				k, err := ends[1].Read(got[at:min(at+50000, size)])
				if err != nil {
					t.Error(err)
					return
				}
				if at/100000 != (at+k)/100000 {
					l.cut(host)
				}
				at += k
			}
			if sha256.Sum256(got) != sha256.Sum256(want) {
				t.Error("what came is not what was sent")
			}
		})
	}
	work.Wait()
}

func ask(t *testing.T, to, from *Stream, text string) {
	t.Helper()
	if _, err := to.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != text {
		t.Fatalf("%q came, not %q (%v)", got, text, err)
	}
}

func TestAnotherHostHearsNothingThatWasForTheFirst(t *testing.T) {
	l, host, guest := begin(t)
	ask(t, host, guest, "hello")
	ask(t, guest, host, "hello yourself")
	if _, err := guest.Write([]byte("for the first host")); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Write([]byte("half a l")); err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	if _, err := io.ReadFull(guest, half); err != nil {
		t.Fatal(err)
	}
	second := NewHost()
	if _, err := second.Write([]byte("written before there was a connection")); err != nil {
		t.Fatal(err)
	}
	l.cut(second)
	rest := make([]byte, len(" a lwritten before there was a connection"))
	if _, err := io.ReadFull(guest, rest); err != nil || string(rest) != " a lwritten before there was a connection" {
		t.Fatalf("the guest reads on with %q (%v)", rest, err)
	}
	ask(t, guest, second, "for the second")
	big := string(noise(7, 3*window))
	work := sync.WaitGroup{}
	work.Go(func() { _, _ = second.Write([]byte(big)) })
	got := make([]byte, len(big))
	if _, err := io.ReadFull(guest, got); err != nil || string(got) != big {
		t.Errorf("much does not come whole in a second session (%v)", err)
	}
	work.Wait()
}

func TestWhatWasWrittenBeforeTheEndsMetComes(t *testing.T) {
	host, guest := NewHost(), NewGuest()
	for _, s := range []*Stream{host, guest} {
		if _, err := s.Write([]byte("early")); err != nil {
			t.Fatal(err)
		}
	}
	near, far, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { _ = host.Serve(near) })
	work.Go(func() { _ = guest.Serve(far) })
	for _, s := range []*Stream{host, guest} {
		got := make([]byte, 5)
		if _, err := io.ReadFull(s, got); err != nil || string(got) != "early" {
			t.Errorf("%q came (%v)", got, err)
		}
	}
	host.Close()
	guest.Close()
	work.Wait()
}

func TestHeldStreamSendsNothing(t *testing.T) {
	_, host, guest := begin(t)
	ask(t, host, guest, "hello")
	host.Hold()
	if _, err := host.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	ask(t, guest, host, "what the guest says comes")
	guest.mu.Lock()
	n := len(guest.in)
	guest.mu.Unlock()
	if n > 0 {
		t.Errorf("%d bytes came from a host that was held", n)
	}
	host.Release()
	ask(t, host, guest, "")
	got := make([]byte, 5)
	if _, err := io.ReadFull(guest, got); err != nil || string(got) != "later" {
		t.Errorf("%q came (%v)", got, err)
	}
}

func TestClosedStreamGivesWhatCame(t *testing.T) {
	_, host, guest := begin(t)
	ask(t, host, guest, "x")
	if _, err := guest.Write([]byte("the last words")); err != nil {
		t.Fatal(err)
	}
	host.mu.Lock()
	for len(host.in) < 14 {
		host.changed.Wait()
	}
	host.mu.Unlock()
	host.Close()
	if got, err := io.ReadAll(host); err != nil || string(got) != "the last words" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := host.Write([]byte("x")); err != ErrClosed {
		t.Errorf("writing: %v", err)
	}
}

func TestOtherEndThatLiesIsHungUpOn(t *testing.T) {
	for what, says := range map[string][]byte{
		"no greeting":            bytes.Repeat([]byte("x"), greetingLen),
		"has more than was sent": append([]byte(magic), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9),
		"too long a frame":       append(append([]byte(magic), make([]byte, 16)...), header(kindData, maxData+1)...),
		"read what was not sent": append(append(append([]byte(magic), make([]byte, 16)...), header(kindRead, 8)...), 0, 0, 0, 0, 0, 0, 0, 1),
		"a kind nobody knows":    append(append([]byte(magic), make([]byte, 16)...), header(9, 0)...),
	} {
		t.Run(what, func(t *testing.T) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			go far.Write(says)
			if err := NewGuest().Serve(near); err == nil || err == io.EOF {
				t.Errorf("it was served until %v", err)
			} else {
				t.Log(fmt.Sprint(err))
			}
			far.Close()
		})
	}
}

func TestKeepEndsWithTheStreamOrItsContext(t *testing.T) {
	nobody := func(context.Context) (io.ReadWriteCloser, error) { return nil, errors.New("nobody is there") }
	s := NewHost()
	s.Close()
	s.Close() // twice does no harm
	s.Keep(t.Context(), nobody)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	NewHost().Keep(ctx, nobody)
}

// A guest that says it is another one again and again must not have the host keep all it sends.
func TestSessionsDoNotAddUpInMemory(t *testing.T) {
	host := NewHost()
	var err error
	for session := uint64(1); session < 10 && err == nil; session++ {
		if err := host.settle(session<<1, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 * window / maxData {
			if err = host.accept(kindData, make([]byte, maxData)); err != nil {
				break
			}
		}
	}
	if len(host.in) > maxWaiting || err == nil {
		t.Errorf("%d bytes wait, and the last frame's error is %v", len(host.in), err)
	}
}

// Whoever holds a stream may wait for what waits for Keep.
func TestKeepOfAHeldStreamEndsWithItsContext(t *testing.T) {
	host := NewHost()
	host.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	host.Keep(ctx, func(context.Context) (io.ReadWriteCloser, error) {
		near, far, err := pair()
		if err == nil {
			far.Close()
			context.AfterFunc(host.waiting(), cancel)
		}
		return near, err
	})
}

// waiting ends when somebody waits for the stream to be released.
func (s *Stream) waiting() context.Context {
	ctx, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		s.mu.Lock()
		defer s.mu.Unlock()
		for s.turn == 0 {
			s.changed.Wait()
		}
	}()
	return ctx
}
