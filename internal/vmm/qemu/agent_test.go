package qemu

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func newGate(t *testing.T) (*agentStream, net.Conn) {
	near, far := net.Pipe() // which has no buffer: a write is stuck until it is read
	t.Cleanup(func() { near.Close(); far.Close() })
	return newAgentStream(near), far
}

func TestShutGateCallsBackAStuckWriteAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := newGate(t)
		text := []byte("first half, second half")
		wrote := make(chan error, 1)
		go func() { _, err := s.Write(text); wrote <- err }()
		half := make([]byte, 10)
		if _, err := io.ReadFull(far, half); err != nil {
			t.Fatal(err)
		}
		s.shutGate()
		far.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes came through a shut gate (%v)", n, err)
		}
		s.openGate()
		far.SetReadDeadline(time.Time{})
		rest := make([]byte, len(text)-len(half))
		if _, err := io.ReadFull(far, rest); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil || !bytes.Equal(append(half, rest...), text) {
			t.Errorf("err = %v, %q then %q", err, half, rest)
		}
	})
}

func TestGateKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newGate(t)
		s.shutGate()
		s.SetDeadline(time.Now().Add(time.Second))
		s.openGate()
		begin := time.Now()
		_, err := s.Write([]byte("nobody reads"))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}
