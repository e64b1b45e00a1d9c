package daemon

import (
	"net"
	"testing"
	"time"

	"banger"
	"banger/internal/loopback"
)

// turnOf keeps everybody from looking for a prefix of a space.
func turnOf(t *testing.T, space loopback.Space) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", "@"+string(space)+"/turn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestFailedClaimIsNotTriedAtEachStart(t *testing.T) {
	space := loopback.Space("banger/test/" + banger.NewID())
	p := &prefixes{stateDir: t.TempDir(), space: space}
	t.Cleanup(p.Close)
	turn := turnOf(t, space)
	if _, _, err := p.Prefix(t.Context(), "127.77"); err == nil {
		t.Fatal("a prefix without a turn")
	}
	_ = turn.Close()
	if _, _, err := p.Prefix(t.Context(), "127.77"); err == nil {
		t.Error("it was tried again at once")
	}
	p.retryAt = time.Time{}
	if got, _, err := p.Prefix(t.Context(), "127.77"); err != nil || got.String() != "127.77" {
		t.Errorf("later: %s, %v", got, err)
	}
}

func TestPrefixIsKeptWhereThereIsNoOther(t *testing.T) {
	space := loopback.Space("banger/test/" + banger.NewID())
	p := &prefixes{stateDir: t.TempDir(), space: space}
	t.Cleanup(p.Close)
	if got, _, err := p.Prefix(t.Context(), "127.77"); err != nil || got.String() != "127.77" {
		t.Fatalf("%s, %v", got, err)
	}
	turn := turnOf(t, space)
	if got, _, err := p.Prefix(t.Context(), "127.101"); err != nil || got.String() != "127.77" {
		t.Errorf("while somebody else looks: %s, %v", got, err)
	}
	_ = turn.Close()
	p.retryAt = time.Time{}
	if got, _, err := p.Prefix(t.Context(), "127.101"); err != nil || got.String() != "127.101" {
		t.Errorf("later: %s, %v", got, err)
	}
	prefix, _ := loopback.Parse("127.77")
	if f, err := space.Hold("other", prefix, "daemon"); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
}
