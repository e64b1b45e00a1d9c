package guest

import (
	"os"
	"testing"
	"time"

	"banger/internal/guestwire"
)

// awaitUnattended waits until so many commands run that nobody is connected to.
func (a *served) awaitUnattended(t *testing.T, n int) (u guestwire.Unattended) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		u = guestwire.Unattended{}
		if err := a.call(t, guestwire.MethodUnattended, nil, &u); err != nil {
			t.Fatal(err)
		}
		if u.Running == n {
			return u
		}
	}
	t.Fatalf("%d commands are unattended, not %d", u.Running, n)
	return u
}

func TestCommandsThatNobodyIsConnectedToAreCounted(t *testing.T) {
	a := serveAgent(t)
	begin := a.dir + "/go"
	wait := []string{"sh", "-c", "while [ ! -e " + begin + " ]; do sleep 0.01; done"}
	attached := a.open(t, guestwire.Exec{Argv: []string{"cat"}, Stdin: true})
	if u := a.awaitUnattended(t, 0); u.EndedMillis != 0 {
		t.Errorf("at first: %+v", u)
	}
	if exit := a.open(t, guestwire.Exec{Argv: wait, Detach: true}).exit(); exit.Status != 0 {
		t.Fatalf("%+v", exit)
	}
	a.awaitUnattended(t, 1)
	attached.Reset() // whose command ends with it
	a.sh(t, "true").exit()
	a.open(t, guestwire.Exec{Argv: wait})
	a.awaitUnattended(t, 1)
	a.restore(t)
	a.awaitUnattended(t, 2)
	if err := os.WriteFile(begin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if u := a.awaitUnattended(t, 0); u.EndedMillis <= 0 || u.EndedMillis > time.Minute.Milliseconds() {
		t.Errorf("at last: %+v", u)
	}
}
