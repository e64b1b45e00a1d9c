package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/guestwire"
)

func TestElapsedReadsNaturally(t *testing.T) {
	for d, want := range map[time.Duration]string{
		340 * time.Millisecond: "340ms", 2440 * time.Millisecond: "2.4s",
		185 * time.Second: "3m05s", 2*time.Hour + 5*time.Minute: "2h05m",
	} {
		if got := elapsed(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

func TestAgeCountsTheLargestUnit(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "now", time.Second: "1 second ago", 150 * time.Second: "2 minutes ago", 49 * time.Hour: "2 days ago",
	} {
		if got := age(now.Add(-ago), now); got != want {
			t.Errorf("%s ago is %q, want %q", ago, got, want)
		}
	}
}

func TestEnvironmentTakesFileThenFlagsAndHidesValues(t *testing.T) {
	lookup := func(k string) (string, bool) { return "mine", k == "HERE" }
	got, err := parseEnv("f", strings.NewReader("# no\n\nA=1\nHERE\nGONE\nB=x y \n"), lookup)
	if want := []string{"A=1", "HERE=mine", "B=x y "}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	_, err = parseEnv("f", strings.NewReader("OK=1\nBAD KEY=s3cret\n"), lookup)
	if err == nil || !strings.Contains(err.Error(), "f:2") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v, want line 2 named and no value", err)
	}
}

func TestRepeatedAndWrongTargetsAreNamedOnceInOrder(t *testing.T) {
	all := []api.VM{{ID: strings.Repeat("a", 32), Name: "one"}, {ID: strings.Repeat("b", 32), Name: "two"}}
	var got []string
	for _, x := range resolveTargets([]string{"two", "none", "aaaa", "one", "none"}, all) {
		got = append(got, x.vm.Name+string(banger.CodeOf(x.err)))
	}
	if want := []string{"two", "not_found", "one"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExitStatuses(t *testing.T) {
	failure := banger.Errorf(banger.NotFound, "gone")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {failure, 1}, {errors.New("x"), 1}, {badUsage("x"), 2}, {&usageError{errors.New("x"), ""}, 2},
		{statusError(42), 42}, {asOurs(failure), 125}, {asOurs(badUsage("x")), 2}, {errInterrupted, 130},
		{ours{badUsage("not a repository")}, 125}, {asOurs(ours{badUsage("not a repository")}), 125}, {ours{errInterrupted}, 130},
		{banger.Wrap(errInterrupted, "cannot wait"), 130},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("%v ends with %d, want %d", c.err, got, c.want)
		}
	}
}

func TestMessagesOfGuestsCannotDriveTheTerminal(t *testing.T) {
	if got := printable("a\x1b[2Jb\x07\u009bc\n"); got != "a\uFFFD[2Jb\uFFFD\uFFFDc\n" {
		t.Errorf("got %q", got)
	}
}

func TestQuotedWordsCanBePasted(t *testing.T) {
	if got := quoteWords([]string{"sh", "-c", "it's $HOME", ""}); got != `sh -c 'it'\''s $HOME' ''` {
		t.Errorf("got %s", got)
	}
}

func TestLastLines(t *testing.T) {
	for n, want := range []string{"", "c\n", "b\nc\n", "a\nb\nc\n", "a\nb\nc\n"} {
		if got := string(lastLines([]byte("a\nb\nc\n"), n)); got != want {
			t.Errorf("%d lines are %q, want %q", n, got, want)
		}
	}
	if got := string(lastLines([]byte("a\nb"), 1)); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestFollowedLogGoesOnAfterRotation(t *testing.T) {
	path := t.TempDir() + "/console.log"
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var got strings.Builder
	if err := l.copyTo(&got); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("new\n")
	if err := errors.Join(l.wait(t.Context(), nil), l.copyTo(&got)); err != nil || got.String() != "old\nnew\n" {
		t.Errorf("got %q, %v", got.String(), err)
	}
	var all strings.Builder
	again, _ := openLog(path)
	defer again.close()
	if err := again.history(&all, -1); err != nil || all.String() != "old\nnew\n" {
		t.Errorf("the history is %q, %v", all.String(), err)
	}
}

func TestSecondInterruptEndsBanger(t *testing.T) {
	now := time.Unix(1000, 0)
	host, _ := execStream(t)
	f := &forwarder{stream: host, now: func() time.Time { return now }}
	step := func(after time.Duration, want error) {
		t.Helper()
		now = now.Add(after)
		if got := f.handle(syscall.SIGINT); !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	step(0, nil)
	step(3*time.Second, nil)
	step(time.Second, errInterrupted)
}

func TestSignalsReachTheCommand(t *testing.T) {
	host, guest := execStream(t)
	f := &forwarder{stream: host, now: time.Now}
	if err := f.handle(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c, ok := guest.NextControl()
	if sig, isSignal := c.Signal(); !ok || !isSignal || sig != uint8(syscall.SIGTERM) {
		t.Errorf("the guest got %+v, %v", c, ok)
	}
}

// brokenPipe fails as a pipe does whose reader went away.
type brokenPipe struct{ err error }

func (b brokenPipe) Write([]byte) (int, error) { return 0, b.err }

func TestReaderThatGoesAwayClosesTheCommandsOutput(t *testing.T) {
	host, guest := execStream(t)
	go func() {
		_, _ = guest.Writer(guestwire.Stdout).Write([]byte("y\n"))
		c, _ := guest.NextControl()
		channel, ok := c.Output()
		status := uint8(1)
		if ok && channel == guestwire.Stdout {
			status = 141
		}
		guest.Finish(guestwire.Exit{Status: status}.Append(nil))
	}()
	exit, err := attach(t.Context(), host, streams{Out: brokenPipe{syscall.EPIPE}, Err: &strings.Builder{}})
	if err != nil || exit.Status != 141 {
		t.Errorf("got %+v, %v", exit, err)
	}
}

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	host, guest := execStream(t)
	go func() {
		_, _ = guest.Writer(guestwire.Stdout).Write([]byte("y\n"))
		guest.Finish(guestwire.Exit{}.Append(nil))
	}()
	_, err := attach(t.Context(), host, streams{Out: brokenPipe{syscall.ENOSPC}, Err: &strings.Builder{}})
	if !errors.As(err, new(errOutput)) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// standing is an output whose reader stands still.
type standing struct{ begun, end chan struct{} }

func (s standing) Write(p []byte) (int, error) {
	close(s.begun)
	<-s.end
	return len(p), nil
}

func TestWhoGivesUpWaitsForNoReader(t *testing.T) {
	host, guest := execStream(t)
	out := standing{make(chan struct{}), make(chan struct{})}
	defer close(out.end)
	if _, err := guest.Writer(guestwire.Stdout).Write([]byte("y\n")); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := attachUntil(ctx, host, streams{Out: out, Err: io.Discard})
		ended <- err
	}()
	<-out.begun
	giveUp(errInterrupted)
	select {
	case err := <-ended:
		if exitStatus(err) != exitInterrupted {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for its reader")
	}
}
