package cli

import (
	"net"
	"testing"

	"banger/internal/guestwire"
)

// execStream is both ends of an exec stream over a real wire.
func execStream(t *testing.T) (host, guest *guestwire.Stream) {
	t.Helper()
	near, far := net.Pipe()
	accepted := make(chan *guestwire.Stream, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = guestwire.Serve(far, false, func(s *guestwire.Stream) { accepted <- s })
	}()
	c, err := guestwire.Dial(near, guestwire.NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); <-served })
	host, err = c.Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"true"}}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return host, <-accepted
}
