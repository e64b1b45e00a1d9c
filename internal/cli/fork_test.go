package cli

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger/internal/guestwire"
)

func TestOutputOfForksComesInWholeLines(t *testing.T) {
	var got []string
	w := &lineWriter{emit: func(line string) { got = append(got, line) }}
	for _, piece := range []string{"on", "e\ntwo\r\n", "\n", strings.Repeat("x", longestLine), "y\nrest"} {
		_, _ = w.Write([]byte(piece))
	}
	w.end()
	if want := []string{"one", "two", "", strings.Repeat("x", longestLine), "y", "rest"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestOutputOfForksIsKeptUpToALimit(t *testing.T) {
	var text string
	var truncated bool
	k := &keptText{text: &text, truncated: &truncated}
	_, _ = k.Write([]byte("\xffshort"))
	if k.end(); text != "\uFFFDshort" || truncated {
		t.Errorf("got %q, truncated: %v", text, truncated)
	}
	if n, err := k.Write(make([]byte, 2*keptOutput)); n != 2*keptOutput || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if k.end(); len(text) > keptOutput+2 || !truncated {
		t.Errorf("%d bytes are kept, truncated: %v", len(text), truncated)
	}
}

func TestSignalsReachForksThatBeginLater(t *testing.T) {
	early, guest1 := execStream(t)
	late, guest2 := execStream(t)
	var g streamGroup
	g.add(early)
	_ = g.Control(guestwire.SignalControl(uint8(syscall.SIGINT)))
	g.add(late)
	for _, guest := range []*guestwire.Stream{guest1, guest2} {
		c, ok := guest.NextControl()
		if sig, isSignal := c.Signal(); !ok || !isSignal || sig != uint8(syscall.SIGINT) {
			t.Errorf("a guest got %+v, %v", c, ok)
		}
	}
}
