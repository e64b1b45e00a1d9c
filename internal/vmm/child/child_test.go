package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// start runs a shell script whose output is read to its end.
func start(t *testing.T, spec Spec, script string) (*Child, string) {
	t.Helper()
	out, far, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	spec.Path, spec.Args, spec.Files = "/bin/sh", []string{"-c", script}, []*os.File{nil, far, far}
	c, err := Start(spec)
	far.Close()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if _, err := out.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	return c, strings.TrimSpace(text.String())
}

func TestStatusIsKept(t *testing.T) {
	c, _ := start(t, Spec{}, "exit 7")
	if status := c.Wait(); status.ExitStatus() != 7 {
		t.Errorf("status = %v", status)
	}
	if err := c.Signal(syscall.SIGKILL); banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestChildHasNoEnvironmentButItsOwn(t *testing.T) {
	t.Setenv("SECRET", "x")
	if _, env := start(t, Spec{Env: []string{"GIVEN=1"}}, "/usr/bin/env"); !strings.Contains(env, "GIVEN=1") || strings.Contains(env, "SECRET") {
		t.Errorf("environment %q", env)
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	if _, err := Start(Spec{Path: "/nonexistent/program"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}

func TestNamespacesMapTheUserOnly(t *testing.T) {
	const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
	if !CanIsolate(flags) {
		t.Skip("this host does not let us make namespaces")
	}
	const show = "cat /proc/self/uid_map; id -u"
	_, own := start(t, Spec{Namespaces: flags}, show)
	_, root := start(t, Spec{Namespaces: flags, Root: true}, show)
	for _, c := range []struct {
		said   string
		inside int
	}{{own, os.Getuid()}, {root, 0}} {
		var inside, outside, size, id int
		if _, err := fmt.Sscan(c.said, &inside, &outside, &size, &id); err != nil ||
			inside != c.inside || outside != os.Getuid() || size != 1 || id != c.inside {
			t.Errorf("map and id are %q, want uid %d (%v)", c.said, c.inside, err)
		}
	}
}

func BenchmarkCanIsolate(b *testing.B) {
	for b.Loop() {
		CanIsolate(unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS)
	}
}
