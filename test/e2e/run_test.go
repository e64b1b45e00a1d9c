package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger/test/world"
)

func TestRunGivesARealDebian(t *testing.T) {
	out := shared.must(t, "run", "--rm", "--", "sh", "-c",
		"cat /etc/debian_version; apt --version; findmnt -no SOURCE,FSTYPE /; nproc; id -un")
	var image struct {
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal([]byte(shared.must(t, "image", "show", "debian-bookworm", "--json")), &image); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if !strings.HasPrefix(lines[0], "12.") || !strings.HasPrefix(lines[1], "apt 2.") {
		t.Errorf("no Debian 12: %q", lines[:2])
	}
	if want := "debian-bookworm@" + image.Digest + " overlay"; strings.Join(strings.Fields(lines[2]), " ") != want {
		t.Errorf("/ is %q, want %q", lines[2], want)
	}
	if image.Digest == "" || lines[4] != "root" {
		t.Errorf("digest %q, user %q", image.Digest, lines[4])
	}
}

func TestStatusesPassThroughVerbatim(t *testing.T) {
	shared.start(t, "statuses")
	for _, c := range []struct {
		argv []string
		want int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 42"}, 42},
		{[]string{"/etc/passwd"}, 126},
		{[]string{"no-such-command"}, 127},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{[]string{"sh", "-c", "exit 255"}, 255},
	} {
		r := shared.Banger(append([]string{"exec", "statuses", "--"}, c.argv...)...)
		if r.Status != c.want || r.Stdout != "" {
			t.Errorf("%v: status %d, want %d; stdout %q, stderr %q", c.argv, r.Status, c.want, r.Stdout, r.Stderr)
		}
	}
	if r := shared.Banger("exec", "no-such-vm", "--", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "hint:") {
		t.Errorf("unknown VM: status %d, %s", r.Status, r.Stderr)
	}
	shared.must(t, "stop", "statuses")
	if r := shared.Banger("exec", "statuses", "--", "true"); r.Status != 125 {
		t.Errorf("stopped VM: status %d, %s", r.Status, r.Stderr)
	}
}

func TestVMMDeathInMidCommandIs125(t *testing.T) {
	shared.start(t, "lost")
	cmd := shared.Command("exec", "lost", "--", "sh", "-c", "echo up; exec sleep 600")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, "up\n")
	kill(t, shared.show(t, "lost").VMMPID)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 125 {
		t.Errorf("status %d, want 125", got)
	}
	eventually(t, "the VM's state tells of the death", func() bool { return shared.show(t, "lost").State == "error" })
}

func waitFor(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestEightExecsAtOnce(t *testing.T) {
	t.Parallel()
	shared.start(t, "busy", "--vcpu", "2")
	var wg sync.WaitGroup
	try := func(name string, f func(t *testing.T)) {
		wg.Go(func() { t.Run(name, f) })
	}

	// A reader that stands still: nobody reads its stdout until the end.
	still := shared.Command("exec", "busy", "--", "cat", "/dev/zero")
	stillOut, _ := still.StdoutPipe()
	if err := still.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = still.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, stillOut)
		_ = still.Wait()
	}()

	const gib = 1 << 30
	try("1 GiB in", func(t *testing.T) {
		h := sha256.New()
		cmd := shared.Command("exec", "-i", "busy", "--", "sha256sum")
		cmd.Stdin = io.TeeReader(io.LimitReader(newNoise(1), gib), h)
		r := world.Finish(cmd)
		if want := fmt.Sprintf("%x  -\n", h.Sum(nil)); r.Stdout != want || r.Status != 0 {
			t.Errorf("got %q, %d, want %q; %s", r.Stdout, r.Status, want, r.Stderr)
		}
	})
	try("1 GiB out", func(t *testing.T) {
		h := sha256.New()
		count := &counter{w: h}
		cmd := shared.Command("exec", "busy", "--", "head", "-c", "1G", "/dev/zero")
		cmd.Stdout = count
		r := world.Finish(cmd)
		want := sha256.New()
		_, _ = io.CopyN(want, zeros{}, gib)
		if r.Status != 0 || count.n != gib || !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
			t.Errorf("%d bytes, status %d, %s", count.n, r.Status, r.Stderr)
		}
	})
	try("half-close", func(t *testing.T) {
		cmd := shared.Command("exec", "-i", "busy", "--", "sh", "-c", "cat; echo after EOF")
		cmd.Stdin = strings.NewReader("before\n")
		if r := world.Finish(cmd); r.Stdout != "before\nafter EOF\n" || r.Status != 0 {
			t.Errorf("%q, %d, %s", r.Stdout, r.Status, r.Stderr)
		}
	})
	try("head ends its writer", func(t *testing.T) {
		// A shell's pipeline as a person would type it; the status is
		// banger's own, so that it tells of the guest's SIGPIPE.
		cmd := exec.Command("bash", "-c", `"$0" exec busy -- sh -c 'exec yes' | head -n 1; exit ${PIPESTATUS[0]}`, shared.Bin)
		cmd.Env = shared.Env()
		if r := world.Finish(cmd); r.Stdout != "y\n" || r.Status != 128+13 {
			t.Errorf("%q, %d, %s", r.Stdout, r.Status, r.Stderr)
		}
	})
	try("stderr apart", func(t *testing.T) {
		r := shared.Banger("exec", "busy", "--", "sh", "-c", "echo out; echo err >&2")
		if r.Stdout != "out\n" || r.Stderr != "err\n" {
			t.Errorf("%q, %q", r.Stdout, r.Stderr)
		}
	})
	try("pty resized", func(t *testing.T) {
		tt := openTerminal(t, 24, 80)
		cmd := shared.Command("exec", "busy", "--", "bash", "-c", `trap 'stty size; exit 7' WINCH; stty size; sleep 600 & wait`)
		tt.start(t, cmd)
		tt.await(t, "24 80\r\n")
		tt.resize(t, 50, 132)
		tt.await(t, "50 132\r\n")
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 7 {
			t.Errorf("status %d, want 7", got)
		}
	})
	try("big arguments", func(t *testing.T) {
		arg := strings.Repeat("x", 100_000)
		r := shared.Banger("exec", "busy", "--", "sh", "-c", "echo ${#1}", "sh", arg)
		if strings.TrimSpace(r.Stdout) != "100000" {
			t.Errorf("%q, %d, %s", r.Stdout, r.Status, r.Stderr)
		}
	})
	wg.Wait()
}

// noise is a cheap stream that does not repeat.
type noise struct{ state uint64 }

func newNoise(seed uint64) *noise { return &noise{seed} }

func (n *noise) Read(p []byte) (int, error) {
	for i := range p {
		n.state ^= n.state << 13
		n.state ^= n.state >> 7
		n.state ^= n.state << 17
		p[i] = byte(n.state)
	}
	return len(p), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

func TestSecondTerminalSeesTheVM(t *testing.T) {
	cmd := shared.Command("run", "--rm", "--name", "seen", "--", "sh", "-c", "echo up; read line; echo $line")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, "up\n")
	if ps := shared.must(t, "ps"); !strings.Contains(ps, "seen") || !strings.Contains(ps, "running") {
		t.Errorf("ps shows\n%s", ps)
	}
	_, _ = io.WriteString(in, "bye\n")
	waitFor(t, out, "bye\n")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !shared.gone(t, "seen") {
		t.Error("a VM run with --rm is still there")
	}
}
