package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/guestwire"
)

// awaitFile waits until a file has that content.
func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	var got []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, _ = os.ReadFile(path); string(got) == want {
			return
		}
	}
	t.Fatalf("%s has %q, not %q", path, got, want)
}

func TestCommandsLiveOnInARestoredGuest(t *testing.T) {
	for name, e := range map[string]guestwire.Exec{
		"with pipes":      {Stdin: true},
		"on a terminal":   {Stdin: true, TTY: true},
		"without a stdin": {},
	} {
		t.Run(name, func(t *testing.T) {
			a := serveAgent(t)
			file := filepath.Join(a.dir, "said")
			// It says more than all pipes and windows hold, and waits for
			// an input that does not come, and for no end of it either.
			e.Argv = []string{"sh", "-c", `trap 'echo HUP > ` + file + `; exit' HUP TERM; echo up; ` +
				`while [ ! -e ` + file + `.go ]; do sleep 0.01; done; head -c 2000000 /dev/zero | tr '\0' x; echo done > ` + file + `; ` +
				`[ -z "$WAIT" ] || { read line; echo "read $line" > ` + file + `; }`}
			if e.Stdin {
				e.Env = []string{"WAIT=1"}
			}
			r := a.open(t, e)
			r.line()
			a.restore(t)
			if err := os.WriteFile(file+".go", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			awaitFile(t, file, "done\n")
			// The agent answers, and has the other command to itself.
			if out := a.sh(t, "echo again; cat "+file).output(); out != "again\ndone\n" {
				t.Fatalf("a new command says %q", out)
			}
		})
	}
}

func TestEndOfACommandOfTheHostBeforeIsReaped(t *testing.T) {
	a := serveAgent(t)
	r := a.sh(t, "echo $$; while [ ! -e "+a.dir+"/go ]; do sleep 0.01; done")
	pid := r.line()
	a.restore(t)
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat("/proc/" + pid); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is still there")
		}
	}
}

func TestShutdownOfARestoredGuestEndsOldCommands(t *testing.T) {
	a := serveAgent(t)
	a.sh(t, "trap 'echo ended > "+a.dir+"/said; exit' TERM; echo up; while :; do sleep 0.01; done").line()
	a.restore(t)
	if err := a.call(t, guestwire.MethodShutdown, guestwire.Shutdown{TimeoutMillis: 60000}, nil); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, a.dir+"/said", "ended\n")
}

func TestBootIDIsChangedWhereItIsAnothers(t *testing.T) {
	var b bootOwner
	changes := 0
	change := func() error { changes++; return nil }
	for _, step := range []struct {
		what    string
		setup   guestwire.Setup
		changes int
	}{
		{"a template", guestwire.Setup{Anybody: true, MachineID: "0"}, 0},
		{"the first fork of it", guestwire.Setup{MachineID: "a"}, 0},
		{"the same after a pause", guestwire.Setup{MachineID: "a"}, 0},
		{"a fork of that", guestwire.Setup{MachineID: "b"}, 1},
		{"the same, suspended and resumed", guestwire.Setup{MachineID: "b"}, 1},
		{"nobody in particular", guestwire.Setup{}, 1},
		{"a fork of the fork", guestwire.Setup{MachineID: "c"}, 2},
	} {
		if err := b.become(step.setup, change); err != nil || changes != step.changes {
			t.Errorf("%s: changed %d times, %v; want %d", step.what, changes, err, step.changes)
		}
	}
	if err := b.become(guestwire.Setup{MachineID: "d"}, func() error { return errors.New("no") }); err == nil {
		t.Error("a failure is not told")
	}
	if _ = b.become(guestwire.Setup{MachineID: "d"}, change); changes != 3 {
		t.Error("what failed is not tried again")
	}
}

func TestUUIDsAreRandomOnes(t *testing.T) {
	one, err := newUUID()
	two, err2 := newUUID()
	if err != nil || err2 != nil || one == two || len(one) != 36 || one[14] != '4' || !strings.ContainsRune("89ab", rune(one[19])) {
		t.Fatalf("%q, %q, %v, %v", one, two, err, err2)
	}
}
