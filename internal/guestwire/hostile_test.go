package guestwire

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
)

// peer is the far end of a connection that keeps to no rules.
func peer(t *testing.T) (c *Conn, w *Writer) {
	t.Helper()
	here, there := net.Pipe()
	greeted := make(chan error, 1)
	go func() {
		r := NewReader(there)
		_, _, err := r.Next()
		w := NewWriter(there)
		greeted <- errors.Join(err, w.Write(TypeHello, Hello{Major, Minor, [TokenLen]byte{}}.append(nil), nil))
		for err == nil {
			_, _, err = r.Next()
		}
	}()
	c, err := Dial(here, NewToken(), nil)
	if err := errors.Join(err, <-greeted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = there.Close() })
	return c, NewWriter(there)
}

func stream(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func TestPeerThatIsNotToOpenStreamsIsLeft(t *testing.T) {
	c, w := peer(t)
	_ = w.Write(TypeOpen, append(stream(7), byte(KindExec)), nil)
	<-c.Done()
	if !errors.Is(c.Err(), ErrProtocol) {
		t.Fatal(c.Err())
	}
}

func TestControlOfNoSenseIsRefused(t *testing.T) {
	c, w := peer(t)
	s, err := c.Open(KindDial, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Write(TypeControl, append(s.head(), byte(ControlConnected)), make([]byte, maxControl+1))
	<-c.Done()
	if !errors.Is(c.Err(), ErrProtocol) {
		t.Fatal(c.Err())
	}
}

func TestAnswerThatIsTooLongIsAFailure(t *testing.T) {
	c := dialEcho(t, func(s *Stream) { s.Finish(make([]byte, MaxPayload)) })
	_, err := c.Call(t.Context(), KindCall, nil)
	var f *Failure
	if !errors.As(err, &f) || f.Code != "internal" || !strings.Contains(f.Message, "1048576 bytes") {
		t.Fatal(err)
	}
	c = dialEcho(t, func(s *Stream) { s.Finish(make([]byte, maxResult)) })
	if body, err := c.Call(t.Context(), KindCall, nil); err != nil || len(body) != maxResult {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
}

func TestConnectionsLeaveRoomForCommandsAndTheseForCalls(t *testing.T) {
	c := dialEcho(t, func(s *Stream) {
		if s.Kind == KindCall {
			s.Finish(nil)
		}
	})
	fill := func(kind Kind) (n int) {
		for {
			if _, err := c.Open(kind, nil); err != nil {
				return n
			}
			n++
		}
	}
	if n := fill(KindDial); n != MaxStreams-2*reserve {
		t.Errorf("%d connections", n)
	}
	if n := fill(KindExec); n != reserve {
		t.Errorf("%d commands beside them", n)
	}
	if _, err := c.Call(t.Context(), KindCall, nil); err != nil {
		t.Error(err)
	}
}

// A guest may write anything for people to read, at any length.
func TestWhatIsForPeopleIsCut(t *testing.T) {
	long := strings.Repeat("é", 1<<17)
	f := parseFailure((&Failure{Code: "internal", Message: long, Hints: []string{long, long}}).append(nil))
	if len(f.Message) > 17*maxLine || len(f.Hints) != 2 || len(f.Hints[0]) > maxLine+3 || !strings.HasSuffix(f.Message, "é…") {
		t.Errorf("a message of %d bytes, hints of %d", len(f.Message), len(f.Hints[0]))
	}
	many := make([]string, 1000)
	r, err := ParseSetupResult(SetupResult{Kernel: long, BootID: "b", Version: long, Failed: append(many, long)}.Append(nil))
	if err != nil || len(r.Kernel) > maxName+3 || len(r.Version) > maxName+3 || r.BootID != "b" || len(r.Failed) != maxFailed {
		t.Errorf("a kernel's name of %d bytes, %d lines, %v", len(r.Kernel), len(r.Failed), err)
	}
}

func TestCutShortMessagesAreRefused(t *testing.T) {
	bad := []byte{0xff, 0xff, 0xff, 0xff, 1}
	if _, err := ParseExit(append([]byte{0}, bad...)); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
	whole := Exec{Argv: []string{"a"}, Detach: true, Program: ProgramNamed + 1, Under: []string{"b"}}.Append(nil)
	for n := range whole {
		_, _ = ParseExec(whole[:n]) // may be an older build's
		_, _ = ParseExec(append(whole[:n:n], bad...))
	}
}
