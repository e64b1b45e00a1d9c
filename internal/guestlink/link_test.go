package guestlink

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
)

// connect links to a guest whose agent is answer.
func connect(t *testing.T, answer func(*guestwire.Stream, guestwire.Call)) *Link {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		_ = guestwire.Serve(there, true, func(s *guestwire.Stream) {
			var c guestwire.Call
			_ = json.Unmarshal(s.Body, &c)
			answer(s, c)
		})
	}()
	l, err := Connect(here, guestwire.NewToken())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestCallsCarryParametersAndResults(t *testing.T) {
	l := connect(t, func(s *guestwire.Stream, c guestwire.Call) {
		switch {
		case c.Method == guestwire.MethodStat && string(c.Params) == `{"path":"/etc"}`:
			s.Finish([]byte(`{"exists":true,"dir":true}`))
		case c.Method == guestwire.MethodShutdown && string(c.Params) == `{"timeout_millis":1500,"reboot":false}`:
			s.Finish([]byte("null"))
		default:
			s.Fail("unknown_method", c.Method+string(c.Params))
		}
	})
	if st, err := l.Stat(t.Context(), "/etc"); err != nil || !st.Exists || !st.Dir {
		t.Fatalf("stat gave %+v, %v", st, err)
	}
	if err := l.Shutdown(t.Context(), 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalKeepsCodeAndHints(t *testing.T) {
	l := connect(t, func(s *guestwire.Stream, _ guestwire.Call) { s.Fail("busy", "cannot sync", "try again") })
	err := l.Sync(t.Context())
	if banger.CodeOf(err) != banger.Busy || err.Error() != "cannot sync" || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v with %q", err, banger.HintsOf(err))
	}
}

func TestCancelledCallIsAbandonedInTheGuest(t *testing.T) {
	abandoned := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	l := connect(t, func(s *guestwire.Stream, _ guestwire.Call) {
		cancel()
		<-s.Done()
		abandoned <- s.Err()
	})
	if _, err := l.Health(ctx); banger.CodeOf(err) != banger.Cancelled {
		t.Fatalf("got %v", err)
	}
	if err := <-abandoned; !errors.Is(err, guestwire.ErrReset) {
		t.Fatalf("the guest saw %v", err)
	}
}

func TestOtherVersionNamesTheRemedy(t *testing.T) {
	err := Error(&guestwire.VersionError{Ours: 1, Theirs: 2})
	if banger.CodeOf(err) != banger.BadVersion || len(banger.HintsOf(err)) == 0 {
		t.Fatalf("got %v with %q", err, banger.HintsOf(err))
	}
}

func TestLinkThatDiesIsUnavailable(t *testing.T) {
	here, there := net.Pipe()
	_ = there.Close()
	if _, err := Connect(here, guestwire.NewToken()); banger.CodeOf(err) != banger.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestDialToAnEarlierAgentNamesTheRemedy(t *testing.T) {
	l := connect(t, func(s *guestwire.Stream, _ guestwire.Call) {
		s.Fail("unknown_method", "the guest agent knows no stream of kind 7")
	})
	_, err := l.Dial(t.Context(), "tcp", "127.0.0.1:80")
	if banger.CodeOf(err) != banger.UnknownMethod || len(banger.HintsOf(err)) == 0 {
		t.Fatalf("got %v with %q", err, banger.HintsOf(err))
	}
}
