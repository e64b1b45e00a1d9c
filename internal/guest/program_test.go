package guest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"

	"banger/internal/guestwire"
)

func TestShellOfTheUserRunsInTheirHome(t *testing.T) {
	a := serveAgent(t)
	who, ok := readAccounts("/etc").user("root")
	if !ok || os.Getuid() != 0 || who.shell == "" {
		t.Skip("the tests' user has no shell of a known name")
	}
	shell := filepath.Base(who.shell)
	for _, c := range []struct {
		program guestwire.Program
		argv    []string
		want    string
	}{
		{guestwire.ProgramNamed, []string{"/bin/sh", "-c", "echo $0; pwd"}, "/bin/sh\n"},
		{guestwire.ProgramShell, []string{"/bin/sh", "-c", "echo $0; pwd"}, shell + "\n"},
		{guestwire.ProgramLogin, []string{"/bin/sh", "-c", "echo $0; pwd"}, "-" + shell + "\n"},
	} {
		r := a.open(t, guestwire.Exec{Argv: c.argv, Program: c.program})
		if got := r.output(); got != c.want+a.dir+"\n" {
			t.Errorf("program %d says %q, want %q in %s", c.program, got, c.want, a.dir)
		}
	}
}

func TestShellThatIsNotThereIsTheOneAskedFor(t *testing.T) {
	a := &agent{}
	for shell, want := range map[string]string{"/no/such/shell": "/bin/sh", "": "/bin/sh", "/etc/passwd": "/bin/sh"} {
		r := guestwire.Exec{Argv: []string{"/bin/sh"}, Program: guestwire.ProgramLogin}
		if path, err := a.program(&r, user{shell: shell}, "/", nil); err != nil || path != want || r.Argv[0] != want {
			t.Errorf("for %q: %s as %s, %v", shell, path, r.Argv[0], err)
		}
	}
}

func TestSignalThatEndedACommandIsTold(t *testing.T) {
	a := serveAgent(t)
	if exit := a.sh(t, "kill -KILL $$").exit(); exit.Signal != uint8(syscall.SIGKILL) {
		t.Errorf("got %+v", exit)
	}
	if exit := a.sh(t, "exit 137").exit(); exit.Signal != 0 || exit.Status != 137 {
		t.Errorf("got %+v", exit)
	}
}

func TestAgentServesFiles(t *testing.T) {
	a := serveAgent(t)
	r := a.open(t, guestwire.Exec{Argv: []string{"agent", "sftp"}, Program: guestwire.ProgramAgent, Stdin: true})
	c, err := sftp.NewClientPipe(r.out, r.in)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Create("made") // below the home
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("sftp ", 100_000)
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if got, err := os.ReadFile(filepath.Join(a.dir, "made")); err != nil || string(got) != content {
		t.Errorf("%d bytes were written, %v", len(got), err)
	}
	if err := c.PosixRename("made", "renamed"); err != nil {
		t.Error(err)
	}
	if _, err := c.Stat("no such file"); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
	_ = c.Close()
	if exit := r.exit(); exit.Status != 0 {
		t.Errorf("the server ended with %+v", exit)
	}
}
