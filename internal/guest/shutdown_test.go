package guest

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"banger/internal/guestwire"
)

func TestShutdownEndsCommandsAndTellsHow(t *testing.T) {
	for reboot, want := range map[bool]int{false: 0, true: rebootStatus} {
		a := serveAgent(t)
		// A child that has not spoken may have the shell's trap still, and live on.
		r := a.sh(t, "trap 'exit 9' TERM; echo $$; sh -c 'echo up; exec sleep 1000' & wait")
		group, err := strconv.Atoi(r.line())
		if err != nil {
			t.Fatal(err)
		}
		r.line()
		if err := a.call(t, guestwire.MethodShutdown, guestwire.Shutdown{TimeoutMillis: 60000, Reboot: reboot}, nil); err != nil {
			t.Fatal(err)
		}
		if exit := r.exit(); exit.Status != 9 {
			t.Errorf("the command ended with %d", exit.Status)
		}
		gone(t, group)
		err = a.cmd.Wait()
		var status *exec.ExitError
		if got := 0; errors.As(err, &status) {
			got = status.ExitCode()
			if got != want {
				t.Errorf("reboot %v ended with %d", reboot, got)
			}
		} else if want != 0 {
			t.Errorf("reboot %v ended with %v", reboot, err)
		}
	}
}

func TestShutdownKillsWhatIgnoresIt(t *testing.T) {
	a := serveAgent(t)
	r := a.sh(t, "trap '' TERM HUP; echo $$; while :; do sleep 1000; done")
	r.line()
	// One that left its process group and lost its parent.
	d := a.sh(t, "trap '' TERM; (setsid sh -c 'echo $$; exec sleep 1000' &)")
	daemon, err := strconv.Atoi(d.line())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.call(t, guestwire.MethodShutdown, guestwire.Shutdown{TimeoutMillis: 1000}, nil); err != nil {
		t.Fatal(err)
	}
	if exit := r.exit(); exit.Status != 128+9 {
		t.Errorf("the command ended with %d", exit.Status)
	}
	gone(t, daemon)
}

func TestNothingStartsDuringShutdown(t *testing.T) {
	a := serveAgent(t)
	enough := filepath.Join(a.dir, "enough")
	r := a.sh(t, "trap '' TERM HUP; echo; while [ ! -e "+enough+" ]; do sleep 0.01; done")
	r.line()
	down := make(chan error)
	go func() { down <- a.call(t, guestwire.MethodShutdown, guestwire.Shutdown{TimeoutMillis: 60000}, nil) }()
	for { // until the shutdown has begun
		s, err := a.Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"true"}}.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Wait(t.Context())
		var f *guestwire.Failure
		if errors.As(err, &f) {
			if f.Code != "not_running" {
				t.Fatalf("refused with %v", err)
			}
			break
		}
	}
	var f *guestwire.Failure
	if err := a.call(t, guestwire.MethodShutdown, guestwire.Shutdown{}, nil); !errors.As(err, &f) || f.Code != "conflict" {
		t.Errorf("a second shutdown: %v", err)
	}
	if err := os.WriteFile(enough, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-down; err != nil {
		t.Fatal(err)
	}
}

func TestInitRequests(t *testing.T) {
	for _, c := range []struct {
		magic, cmd, level uint32
		end, reboot       bool
	}{
		{0x03091969, 1, '0', true, false},
		{0x03091969, 1, '6', true, true},
		{0x03091969, 1, '3', false, false},
		{0x03091969, 2, '0', false, false},
		{0xdeadbeef, 1, '0', false, false},
	} {
		b := binary.NativeEndian.AppendUint32(nil, c.magic)
		b = binary.NativeEndian.AppendUint32(b, c.cmd)
		b = binary.NativeEndian.AppendUint32(b, c.level)
		b = append(b, make([]byte, initRequestLen-len(b))...)
		if end, reboot := parseInitRequest(b); end != c.end || reboot != c.reboot {
			t.Errorf("%+v gave %v, %v", c, end, reboot)
		}
	}
}

func TestHealthAndStatsAnswer(t *testing.T) {
	a := serveAgent(t)
	var h guestwire.Health
	if err := a.call(t, guestwire.MethodHealth, nil, &h); err != nil || h.UptimeSeconds <= 0 || len(h.Problems) != 0 {
		t.Errorf("health %+v, %v", h, err)
	}
	var s guestwire.GuestStats
	if err := a.call(t, guestwire.MethodStats, nil, &s); err != nil || s.MemTotal <= 0 || s.DiskTotal <= 0 || s.Processes < 2 || s.CPUSeconds <= 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
	var f *guestwire.Failure
	if err := a.call(t, "no-such-method", nil, nil); !errors.As(err, &f) || f.Code != "unknown_method" {
		t.Errorf("unknown method: %v", err)
	}
}
