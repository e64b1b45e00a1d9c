package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"banger/internal/loopback"
	"banger/internal/names"
)

func TestWhoAnswersForNamesIsSaid(t *testing.T) {
	answer := func(t *testing.T, e *exam, owner string) {
		s, err := names.Open(names.Config{
			Address: freeAddress(e), Owner: owner, Log: slog.New(slog.DiscardHandler),
			Lookup: func(context.Context, string) (netip.Addr, bool) { return netip.Addr{}, false },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
	}
	for name, c := range map[string]struct {
		others  func(t *testing.T, e *exam)
		verdict Verdict
		says    string
	}{
		"nobody": {func(*testing.T, *exam) {}, Pass, "no daemon runs"},
		"our daemon": {func(t *testing.T, e *exam) {
			owner, err := loopback.OwnerOf(e.dirs.State)
			if err != nil {
				t.Fatal(err)
			}
			answer(t, e, string(owner))
		}, Pass, "banger dns"},
		"another daemon": {func(t *testing.T, e *exam) { answer(t, e, "another") }, Warn, "another daemon"},
		"another program": {func(t *testing.T, e *exam) {
			c, err := net.ListenPacket("udp", freeAddress(e))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}, Warn, "another program"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExam(t)
			if err := os.MkdirAll(e.dirs.State, 0o700); err != nil {
				t.Fatal(err)
			}
			c.others(t, e)
			if r := e.only(t, e.names); r.Verdict != c.verdict || !strings.Contains(r.Detail, c.says) {
				t.Errorf("got %+v", r)
			}
		})
	}
	e := newExam(t)
	if r := e.only(t, e.names); r.Verdict != Pass {
		t.Errorf("without a state directory: %+v", r)
	}
}

// freeAddress is one that nobody listens on, and that the exam looks at.
func freeAddress(e *exam) string {
	e.host.dns = fmt.Sprintf("127.203.%d.%d:42069", rand.IntN(256), rand.IntN(256))
	return e.host.dns
}
