package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"banger"
)

// fakeMonitor answers each request line with what reply makes of it.
func fakeMonitor(t *testing.T, reply func(name string, id int) string) (*monitor, chan event) {
	t.Helper()
	near, far := net.Pipe()
	events := make(chan event, 8)
	go func() {
		defer far.Close()
		fmt.Fprintln(far, `{"QMP": {"version": {}, "capabilities": ["oob"]}}`)
		for in := bufio.NewScanner(far); in.Scan(); {
			var request struct {
				Execute string
				ID      int
			}
			if err := json.Unmarshal(in.Bytes(), &request); err != nil {
				t.Errorf("request %s: %v", in.Text(), err)
			}
			answer := reply(request.Execute, request.ID)
			if answer == "" {
				return
			}
			fmt.Fprintln(far, answer)
		}
	}()
	m := newMonitor(near, func(e event) { events <- e })
	t.Cleanup(func() { near.Close(); <-m.closed })
	return m, events
}

func ok(id int) string { return fmt.Sprintf(`{"return": {}, "id": %d}`, id) }

func TestMonitorSortsAnswersFromEvents(t *testing.T) {
	m, events := fakeMonitor(t, func(name string, id int) string {
		if name == "stop" {
			return `{"event": "STOP", "data": {"a": 1}}` + "\n" + ok(id)
		}
		return fmt.Sprintf(`{"return": {"status": %q}, "id": %d}`, name, id)
	})
	ctx := t.Context()
	if err := m.handshake(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.execute(ctx, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Name != "STOP" || string(e.Data) != `{"a": 1}` {
		t.Errorf("event = %s %s", e.Name, e.Data)
	}
	var status struct{ Status string }
	if err := m.execute(ctx, "query-status", nil, &status); err != nil || status.Status != "query-status" {
		t.Errorf("query-status = %q, %v", status.Status, err)
	}
}

func TestMonitorReportsQEMUsRefusal(t *testing.T) {
	m, _ := fakeMonitor(t, func(name string, id int) string {
		return fmt.Sprintf(`{"id": %d, "error": {"class": "GenericError", "desc": "no such device"}}`, id)
	})
	var refusal *qmpError
	err := m.execute(t.Context(), "block_resize", nil, nil)
	if !errors.As(err, &refusal) || refusal.Desc != "no such device" {
		t.Errorf("err = %v", err)
	}
}

func TestMonitorFailsWhenQEMUEnds(t *testing.T) {
	m, _ := fakeMonitor(t, func(string, int) string { return "" })
	if err := m.execute(t.Context(), "cont", nil, nil); !errors.Is(err, errMonitorClosed) {
		t.Errorf("pending command: err = %v", err)
	}
	if err := m.execute(t.Context(), "cont", nil, nil); !errors.Is(err, errMonitorClosed) {
		t.Errorf("later command: err = %v", err)
	}
}

// QEMU may be its guest's by now.
func TestMonitorTakesNoMessageWithoutBound(t *testing.T) {
	answer := maxMessage - 1024
	m, _ := fakeMonitor(t, func(_ string, id int) string {
		return fmt.Sprintf(`{"return": %q, "id": %d}`, strings.Repeat("x", answer), id)
	})
	for range 2 { // each may have as much
		var said string
		if err := m.execute(t.Context(), "query-status", nil, &said); err != nil || len(said) != answer {
			t.Fatalf("%d bytes, %v", len(said), err)
		}
	}
	answer = maxMessage
	for range 2 { // nor is anything said to it afterwards
		err := m.execute(t.Context(), "query-status", nil, nil)
		if !errors.Is(err, errTooLong) || banger.CodeOf(err) != banger.Unavailable {
			t.Fatalf("got %v", err)
		}
	}
}

func TestMonitorForgetsACancelledCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	answers := 0
	m, _ := fakeMonitor(t, func(_ string, id int) string {
		if answers++; answers == 1 {
			cancel() // before its answer, which comes with the next one
			return " "
		}
		return ok(id-1) + "\n" + ok(id)
	})
	if err := m.execute(ctx, "migrate", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := m.execute(t.Context(), "cont", nil, nil); err != nil {
		t.Errorf("the command after it: %v", err)
	}
}
