package guestwire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

// echo is an accepting side that copies channel 0 to channel 1.
func echo(s *Stream) {
	out := s.Writer(Stdout)
	_, err := io.Copy(out, s.Reader(Stdin))
	_ = out.Close()
	if err == nil {
		s.Finish(Exit{Status: 7}.Append(nil))
	}
}

func dialEcho(t *testing.T, accept func(*Stream)) *Conn {
	t.Helper()
	here, there := net.Pipe()
	go func() { _ = Serve(there, true, accept) }()
	c, err := Dial(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestBeginGoesOnBeforeThePeerHasAnswered(t *testing.T) {
	here, there := net.Pipe()
	answer := make(chan error, 1)
	go func() {
		r, w := NewReader(there), NewWriter(there)
		for _, want := range []Type{TypeHello, TypeOpen} { // both, and not a word until then
			if typ, _, err := r.Next(); err != nil || typ != want {
				answer <- fmt.Errorf("frame type %d, want %d: %v", typ, want, err)
				return
			}
		}
		err := w.Write(TypeHello, Hello{Major, 3, [TokenLen]byte{}}.append(nil), nil)
		answer <- errors.Join(err, w.Write(TypeResult, []byte{0, 0, 0, 1, 0}, []byte("done")))
	}()
	c, err := Begin(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body, err := c.Call(t.Context(), KindExec, nil)
	if err := errors.Join(err, <-answer); err != nil || string(body) != "done" {
		t.Fatalf("got %q, %v", body, err)
	}
	if c.Minor() != 3 {
		t.Errorf("both speak %d", c.Minor())
	}
}

func TestBeginAtAPeerOfAnotherVersionFailsWhatIsAsked(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		r, w := NewReader(there), NewWriter(there)
		_, _, _ = r.Next()
		_, _, _ = r.Next()
		_ = w.Write(TypeHello, Hello{Major + 1, 0, [TokenLen]byte{}}.append(nil), nil)
	}()
	c, err := Begin(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Call(t.Context(), KindExec, nil)
	var bad *VersionError
	if !errors.As(err, &bad) || bad.Theirs != Major+1 || c.Minor() != 0 {
		t.Fatalf("got %v and minor %d", err, c.Minor())
	}
}

// leaving is a peer that said its last word and left; that is read after it was noticed.
type leaving struct {
	word    io.Reader
	noticed chan struct{}
	writes  int
}

func (l *leaving) Read(p []byte) (int, error) { <-l.noticed; return l.word.Read(p) }
func (l *leaving) Close() error               { return nil }
func (l *leaving) Write(p []byte) (int, error) {
	if l.writes++; l.writes == 1 {
		return len(p), nil // HELLO
	}
	defer close(l.noticed)
	return 0, syscall.EPIPE
}

func TestBeginAtAPeerThatHasLeftFailsWithWhatItSaid(t *testing.T) {
	var word bytes.Buffer
	if err := NewWriter(&word).Write(TypeHello, Hello{Major + 1, 0, [TokenLen]byte{}}.append(nil), nil); err != nil {
		t.Fatal(err)
	}
	c, err := Begin(&leaving{word: &word, noticed: make(chan struct{})}, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var bad *VersionError
	if _, err := c.Open(KindExec, nil); !errors.As(err, &bad) {
		t.Fatalf("got %v", err)
	}
}

func TestStreamCarriesBytesBothWaysAndEndsWithItsResult(t *testing.T) {
	c := dialEcho(t, echo)
	s, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	go func() {
		w := s.Writer(Stdin)
		_, _ = w.Write(sent)
		_ = w.Close()
	}()
	got, err := io.ReadAll(s.Reader(Stdout))
	if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
		t.Fatalf("echo gave %d bytes of %d: %v", len(got), len(sent), err)
	}
	body, err := s.Wait(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := ParseExit(body); err != nil || exit.Status != 7 {
		t.Fatalf("exit %v, %v", exit, err)
	}
}

func TestReaderThatStandsStillDelaysNoOtherStream(t *testing.T) {
	c := dialEcho(t, echo)
	stuck, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	full := make(chan struct{})
	go func() {
		w := stuck.Writer(Stdin)
		_, _ = w.Write(make([]byte, Window)) // fits, whoever reads
		close(full)
		_, _ = w.Write(make([]byte, 5*Window)) // does not
	}()
	<-full
	other, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := other.Writer(Stdin)
	_, _ = w.Write([]byte("hello"))
	_ = w.Close()
	if got, err := io.ReadAll(other.Reader(Stdout)); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	stuck.Reset()
}

func TestEndOfAChannelNeverOvertakesItsData(t *testing.T) {
	// Channels are closed while others hold the link and their own frames
	// wait for it; one out of order would end the connection.
	c := dialEcho(t, func(s *Stream) {
		var writing sync.WaitGroup
		for ch := range uint8(MaxChannels) {
			writing.Go(func() {
				for buf := make([]byte, 512); ; {
					if _, err := s.Writer(ch).Write(buf); err != nil {
						return
					}
				}
			})
		}
		_, _ = s.Reader(Stdin).Read(make([]byte, 1))
		for ch := range uint8(MaxChannels) {
			_ = s.Writer(ch).Close()
		}
		writing.Wait()
		s.Finish(nil)
	})
	for range 100 {
		s, err := c.Open(KindExec, nil)
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		for ch := range uint8(MaxChannels) {
			reading.Go(func() { _, _ = io.Copy(io.Discard, s.Reader(ch)) })
		}
		_, _ = s.Writer(Stdin).Write([]byte{1})
		if _, err := s.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		reading.Wait()
	}
}

func TestResetReachesTheAcceptingSide(t *testing.T) {
	ended := make(chan error, 1)
	c := dialEcho(t, func(s *Stream) {
		<-s.Done()
		ended <- s.Err()
	})
	s, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Reset()
	if err := <-ended; !errors.Is(err, ErrReset) {
		t.Fatalf("ended with %v", err)
	}
}

func TestFailureKeepsItsCodeAndHints(t *testing.T) {
	c := dialEcho(t, func(s *Stream) { s.Fail("not_found", "cannot run: no such user", "use --user root") })
	_, err := c.Call(context.Background(), KindCall, nil)
	var f *Failure
	if !errors.As(err, &f) || f.Code != "not_found" || len(f.Hints) != 1 || f.Hints[0] != "use --user root" {
		t.Fatalf("got %v", err)
	}
}

func TestControlsArriveInOrder(t *testing.T) {
	got := make(chan uint8, 3)
	c := dialEcho(t, func(s *Stream) {
		for range 3 {
			ctl, _ := s.NextControl()
			sig, _ := ctl.Signal()
			got <- sig
		}
		s.Finish(nil)
	})
	s, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []uint8{1, 15, 9} {
		if err := s.Control(SignalControl(sig)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a, b, c := <-got, <-got, <-got; a != 1 || b != 15 || c != 9 {
		t.Fatalf("got %d %d %d", a, b, c)
	}
}

func TestLostConnectionFailsEveryStream(t *testing.T) {
	here, there := net.Pipe()
	opened := make(chan struct{})
	go func() { _ = Serve(there, false, func(*Stream) { close(opened) }) }()
	c, err := Dial(here, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	_ = there.Close()
	if _, err := s.Wait(context.Background()); !errors.Is(err, ErrClosed) {
		t.Fatalf("stream ended with %v", err)
	}
	if _, err := c.Open(KindExec, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("open gave %v", err)
	}
}

// swapped is a guest's end of a link whose host is exchanged underneath after
// the first write, as a restore does: the guest notices nothing.
type swapped struct {
	io.Reader
	first, then io.Writer
	written     bool
}

func (s *swapped) Write(p []byte) (int, error) {
	if s.written {
		return s.then.Write(p)
	}
	s.written = true
	return s.first.Write(p)
}

func (s *swapped) Close() error { return nil }

func TestNewHostStartsAfreshInTheMiddleOfAFrame(t *testing.T) {
	first, firstHost := net.Pipe()
	second, secondHost := net.Pipe()
	halfFrame := []byte{byte(TypeData), 0, 1, 0, 0, 0, 0, 1} // promises 256 bytes, holds 4
	var in bytes.Buffer
	token := NewToken()
	w := NewWriter(&in)
	_ = w.Write(TypeHello, Hello{Major, Minor, token}.append(nil), nil)
	_ = w.Write(TypeOpen, []byte{0, 0, 0, 1, byte(KindExec)}, nil)
	in.Write(halfFrame)
	guest := &swapped{Reader: io.MultiReader(&in, iotest.OneByteReader(second)), first: first, then: second}
	dropped := make(chan error, 1)
	go func() {
		_ = Serve(guest, true, func(s *Stream) {
			if s.Kind == KindExec {
				<-s.Done()
				dropped <- s.Err()
				return
			}
			s.Finish([]byte("afresh"))
		})
	}()
	if typ, _, err := NewReader(firstHost).Next(); typ != TypeHello || err != nil {
		t.Fatalf("first host read %d, %v", typ, err)
	}
	c, err := Redial(secondHost, token, NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-dropped; !errors.Is(err, ErrResync) {
		t.Fatalf("old stream ended with %v", err)
	}
	if got, err := c.Call(context.Background(), KindCall, nil); string(got) != "afresh" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestNonsenseIsIgnoredUntilTheHostStartsAfresh(t *testing.T) {
	for name, nonsense := range map[string][]byte{
		"frame type":   {99, 0, 0, 0},
		"inside":       {byte(TypeData), 0, 0, 1, 0},
		"half a hello": {byte(TypeHello), 0, 0, 2, 'b', 'n'},
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := net.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Serve(guest, true, func(s *Stream) { s.Finish([]byte("afresh")) }) }()
			token := NewToken()
			w := NewWriter(host)
			_ = w.Write(TypeHello, Hello{Major, Minor, token}.append(nil), nil)
			if _, _, err := NewReader(host).Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := host.Write(nonsense); err != nil {
				t.Fatal(err)
			}
			c, err := Redial(host, token, NewToken(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Call(context.Background(), KindCall, nil); string(got) != "afresh" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			_ = c.Close()
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Fatalf("ended with %v", err)
			}
		})
	}
}

func TestOtherMajorVersionIsRefusedByName(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		_, _, _ = NewReader(there).Next()
		_ = NewWriter(there).Write(TypeHello, Hello{Major: 99}.append(nil), nil)
	}()
	_, err := Dial(here, NewToken(), nil)
	var v *VersionError
	if !errors.As(err, &v) || v.Theirs != 99 {
		t.Fatalf("got %v", err)
	}
}

func TestExecRequestSurvivesTheWire(t *testing.T) {
	want := Exec{Argv: []string{"sh", "-c", "echo \x00é"}, Env: []string{"A=b"}, Dir: "/x", User: "u", UID: 1000, TTY: true, Rows: 3, Cols: 4, Stdin: true, Detach: true}
	got, err := ParseExec(want.Append(nil))
	if err != nil || got.Argv[2] != want.Argv[2] || got.Env[0] != "A=b" || got.UID != 1000 || !got.TTY || !got.Stdin || got.Cols != 4 || !got.Detach {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestWhatWasAddedToExecIsOptional(t *testing.T) {
	for _, want := range []Exec{
		{Argv: []string{"sh"}, Program: ProgramLogin},
		{Argv: []string{"sh"}, Program: ProgramShell, Detach: true},
		{Argv: []string{"sh"}, Detach: true},
		{Argv: []string{"sh"}},
	} {
		got, err := ParseExec(want.Append(nil))
		if err != nil || got.Program != want.Program || got.Detach != want.Detach {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for _, want := range []Exit{{Status: 137, Signal: 9}, {Status: 127, Message: "none"}} {
		if got, err := ParseExit(want.Append(nil)); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// fuzzSeeds are connections worth mutating.
func fuzzSeeds(f *testing.F) {
	var b bytes.Buffer
	w := NewWriter(&b)
	_ = w.Write(TypeHello, Hello{Major, Minor, [TokenLen]byte{1}}.append(nil), nil)
	_ = w.Write(TypeOpen, []byte{0, 0, 0, 1, byte(KindExec)}, Exec{Argv: []string{"true"}}.Append(nil))
	_ = w.Write(TypeData, []byte{0, 0, 0, 1, 0}, []byte("data"))
	_ = w.Write(TypeCredit, []byte{0, 0, 0, 1, 1}, []byte{0, 0, 0, 4})
	_ = w.Write(TypeControl, []byte{0, 0, 0, 1, 1}, []byte{15})
	_ = w.Write(TypeEOF, []byte{0, 0, 0, 1, 0}, nil)
	_ = w.Write(TypeResult, []byte{0, 0, 0, 1, 0}, Exit{}.Append(nil))
	_ = w.Write(TypeReset, []byte{0, 0, 0, 1}, nil)
	f.Add(b.Bytes())
	f.Add([]byte{})
}

type script struct {
	io.Reader
	io.Writer
}

func (script) Close() error { return nil }

// FuzzServe feeds arbitrary bytes to the accepting side, which is the guest's
// and the shim's.
func FuzzServe(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		_ = Serve(script{bytes.NewReader(in), io.Discard}, true, func(s *Stream) {
			_, _ = ParseExec(s.Body)
			echo(s)
		})
	})
}

// FuzzDial feeds arbitrary bytes to the opening side, which must survive a
// hostile guest.
func FuzzDial(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := Dial(script{bytes.NewReader(in), io.Discard}, NewToken(), nil)
		if err != nil {
			return
		}
		if body, err := c.Call(context.Background(), KindExec, nil); err == nil {
			_, _ = ParseExit(body)
		}
		<-c.Done()
	})
}

func TestSetupAndItsResultKeepAllTheyCarry(t *testing.T) {
	s := Setup{
		Hostname: "a", MachineID: "b", TimeNanos: -1, Entropy: []byte{0, 255}, GuestIP: "c", Image: "d",
		Env: []string{"E=1", "F="}, WorkDir: "g", DiskBytes: 8 << 30, Anybody: true,
		Network: &Network{MAC: [6]byte{1, 2}, Address: [4]byte{10, 77, 0, 2}, Gateway: [4]byte{10, 77, 0, 1}, GatewayMAC: [6]byte{3, 4}, Drop: true},
		User:    "h", Trust: "i",
	}
	if got, err := ParseSetup(append(s.Append(nil), "of a newer minor"...)); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v", got, err)
	}
	r := SetupResult{Kernel: "a", BootID: "b", Version: "c", TimeNanos: 1 << 60, Failed: []string{"d", "e"}}
	if got, err := ParseSetupResult(append(r.Append(nil), 1)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	of6 := s
	of6.Trust = ""
	of3 := of6
	of3.User = ""
	of1 := of3
	of1.Network = nil
	older := map[int]Setup{ // which ended there
		len(of1.Append(nil)) - len("\x00") - 2*len("\x00\x00\x00\x00"): of1,
		len(of3.Append(nil)) - 2*len("\x00\x00\x00\x00"):               of3,
		len(of6.Append(nil)) - len("\x00\x00\x00\x00"):                 of6,
	}
	for n := range len(s.Append(nil)) {
		got, err := ParseSetup(s.Append(nil)[:n])
		if want, whole := older[n]; whole && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("of an older minor: %+v, %v", got, err)
		} else if !whole && !errors.Is(err, ErrProtocol) {
			t.Fatalf("the first %d bytes gave %v", n, err)
		}
	}
}

func TestTargetSurvivesTheWire(t *testing.T) {
	want := Target{Network: "tcp", Address: "[::1]:80"}
	if got, err := ParseTarget(append(want.Append(nil), 1)); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range want.Append(nil) {
		if _, err := ParseTarget(want.Append(nil)[:n]); !errors.Is(err, ErrProtocol) {
			t.Fatalf("the first %d bytes gave %v", n, err)
		}
	}
}

func TestListenersSurviveTheWire(t *testing.T) {
	want := []Listener{
		{netip.MustParseAddrPort("0.0.0.0:80"), 7, "nginx"},
		{netip.MustParseAddrPort("[::1]:8080"), 0, ""},
	}
	var b bytes.Buffer
	for range 2 {
		if err := WriteListeners(&b, want); err != nil {
			t.Fatal(err)
		}
	}
	whole := bytes.Clone(b.Bytes()[:b.Len()/2])
	for range 2 {
		if got, err := ReadListeners(&b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	for n := range whole[4:] { // what a hostile guest may send
		binary.BigEndian.PutUint32(whole, uint32(n))
		if _, err := ReadListeners(bytes.NewReader(whole)); !errors.Is(err, ErrProtocol) {
			t.Fatalf("the first %d bytes gave %v", n, err)
		}
	}
	if _, err := ReadListeners(strings.NewReader("\xff\xff\xff\xff")); !errors.Is(err, ErrProtocol) {
		t.Fatalf("a monstrous length gave %v", err)
	}
}
