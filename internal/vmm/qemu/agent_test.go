package qemu

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// agentPair gives both ends of an agent's stream.
func agentPair(t *testing.T) (near *agentConn, far net.Conn) {
	t.Helper()
	w := &wires{}
	conn, err := w.openPair()
	if err != nil {
		t.Fatal(err)
	}
	defer w.closeFar() // FileConn has its own
	if far, err = net.FileConn(w.far[0]); err != nil {
		t.Fatal(err)
	}
	near = &agentConn{UnixConn: conn.(*net.UnixConn)}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestNobodyReadsOfTheAgentWhileItIsHeld(t *testing.T) {
	near, far := agentPair(t)
	near.gate.Lock()
	got := make(chan string)
	go func() {
		text := make([]byte, 10)
		n, err := near.Read(text)
		if err != nil {
			t.Error(err)
		}
		got <- string(text[:n])
	}()
	if _, err := io.WriteString(far, "now"); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		t.Fatalf("%q was read", text)
	case <-time.After(50 * time.Millisecond):
	}
	near.gate.Unlock()
	if text := <-got; text != "now" {
		t.Errorf("%q was read", text)
	}
}

func TestAgentsStreamEndsAsOthersDo(t *testing.T) {
	near, far := agentPair(t)
	if err := near.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at its deadline: %v", err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(nil); n != 0 || err != nil {
		t.Errorf("into nothing: %d, %v", n, err)
	}
	if _, err := io.WriteString(far, "last"); err != nil {
		t.Fatal(err)
	}
	far.Close()
	text, err := io.ReadAll(near)
	if string(text) != "last" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	near.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("when closed: %v", err)
	}
}
