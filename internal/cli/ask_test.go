package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// typing gives ask another stdin.
func typing(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin = r
	t.Cleanup(func() { os.Stdin = stdin; w.Close() })
	return w
}

func TestOnlyYesAgrees(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, " YES \n": true, "y": true, "n\n": false, "\n": false, "": false, "yeah\n": false} {
		keys := typing(t)
		if _, err := keys.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		keys.Close()
		if got, err := (&voice{err: &strings.Builder{}}).ask(t.Context(), "delete?"); err != nil || got != want {
			t.Errorf("%q: %v, %v", answer, got, err)
		}
	}
}

func TestAnInterruptIsNoAnswer(t *testing.T) {
	for _, typed := range []string{"", "y\n"} {
		if _, err := typing(t).WriteString(typed); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errInterrupted)
		ended := make(chan error, 1)
		go func() {
			ok, err := (&voice{err: &strings.Builder{}}).ask(ctx, "delete?")
			if ok {
				err = errors.New("it was agreed to")
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if exitStatus(err) != exitInterrupted {
				t.Errorf("%q: %v", typed, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the question still waits for its answer")
		}
	}
}
