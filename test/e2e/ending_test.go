package e2e

import (
	"io"
	"os"
	"strings"
	"testing"
)

// How a guest ends the machine it is in; a reboot is a test of its own.
func TestGuestEndsItsMachine(t *testing.T) {
	shared.start(t, "ending")
	for _, c := range []struct{ command, state, why string }{
		{"poweroff", "stopped", ""},
		{"halt", "stopped", ""},
		{"poweroff -f", "stopped", ""},
		{"echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", "error", "panicked: sysrq triggered crash\n"},
	} {
		r := shared.Banger("exec", "ending", "--", "sh", "-c", "echo kept >/root/file; sync; "+c.command+"; sleep 600")
		if r.Status == 0 || r.Status == 1 {
			t.Errorf("%s: the command's status is %d\n%s", c.command, r.Status, r.Stderr)
		}
		eventually(t, c.command+" makes it "+c.state, func() bool { return shared.show(t, "ending").State == c.state })
		vm := shared.show(t, "ending")
		if !strings.Contains(vm.LastError, c.why) || c.why == "" && vm.LastError != "" {
			t.Errorf("%s: last error %q", c.command, vm.LastError)
		}
		if c.why != "" && len(strings.Split(vm.LastError, "\n")) < 3 {
			t.Errorf("%s: the last error does not show the console: %q", c.command, vm.LastError)
		}
		shared.must(t, "start", "ending")
		if got := shared.must(t, "exec", "ending", "--", "cat", "/root/file"); got != "kept" {
			t.Errorf("after %s the file has %q", c.command, got)
		}
		shared.must(t, "exec", "ending", "--", "rm", "/root/file")
	}
}

// awaitText reads until what was read contains text, and gives all of it.
func awaitText(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var seen strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(seen.String(), text); {
		n, err := r.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v; there was %q", text, err, seen.String())
		}
	}
	return seen.String()
}

func TestLogsAreFollowedUntilTheVMEnds(t *testing.T) {
	shared.start(t, "followed")
	say := func(text string) { shared.must(t, "exec", "followed", "--", "sh", "-c", "echo "+text+" >/dev/ttyS0") }
	say("said before")
	cmd := shared.Command("logs", "-f", "followed")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitText(t, out, "said before")
	say("said while followed")
	awaitText(t, out, "said while followed")
	shared.must(t, "stop", "followed")
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || !strings.Contains(string(rest), "Power down") {
		t.Errorf("%v; the end is %q", err, rest)
	}
}

func TestStatsAreWatchedUntilCtrlC(t *testing.T) {
	shared.start(t, "watched")
	cmd := shared.Command("vm", "stats", "--watch", "watched")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	table := awaitText(t, out, "%") // which only the second row has
	if !strings.HasPrefix(table, "TIME") || strings.Count(table, "\n") < 3 {
		t.Errorf("the table is\n%s", table)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("status %d, want 130", got)
	}
}
