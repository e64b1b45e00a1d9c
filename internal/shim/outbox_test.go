package shim

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// socketPair is a connection through an outbox and its reading end.
func socketPair(t *testing.T) (*outbox, net.Conn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOutbox(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close(); _ = o.Close() })
	return o, far
}

func TestOutboxKeepsTheOrderWhateverTheSocketTakes(t *testing.T) {
	o, far := socketPair(t)
	var sent bytes.Buffer
	next := byte(0)
	for sent.Len() < 8<<20 { // far more than a socket holds, and nobody reads yet
		piece := bytes.Repeat([]byte{next}, 1+rand.IntN(64<<10))
		next++
		sent.Write(piece)
		if n, err := o.Write(piece); n != len(piece) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	go o.finish(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent.Bytes()) {
		t.Fatalf("%d bytes of %d, or in disorder: %v", len(got), sent.Len(), err)
	}
}

func TestOutboxDropsAClientThatNeverReads(t *testing.T) {
	o, _ := socketPair(t)
	piece := make([]byte, 1<<20)
	var err error
	for range 2 * maxBacklog / len(piece) {
		if _, err = o.Write(piece); err != nil {
			break
		}
	}
	if !errors.Is(err, errStalled) {
		t.Fatalf("got %v", err)
	}
	if _, err := o.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the connection is open: %v", err)
	}
}

func TestOutboxGivesUpAtItsDeadline(t *testing.T) {
	o, _ := socketPair(t)
	if _, err := o.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	o.finish(time.Now()) // returns, though nobody reads
}
