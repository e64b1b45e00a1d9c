package shim

import (
	"context"
	"math"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// unused has a VM not been used for that long.
func (r *rig) unused(d time.Duration) {
	r.shim.mu.Lock()
	defer r.shim.mu.Unlock()
	r.shim.touched = time.Now().Add(-d)
}

// endsIdle are the ways to end a VM that is idle.
var endsIdle = map[string]func(r *rig, idle time.Duration) (Exit, error){
	"stop":    func(r *rig, idle time.Duration) (Exit, error) { return r.StopIdle(context.Background(), 0, idle) },
	"suspend": func(r *rig, idle time.Duration) (Exit, error) { return r.SuspendIdle(context.Background(), idle) },
}

func TestIdleVMIsEndedAndOneInUseIsNot(t *testing.T) {
	for name, end := range endsIdle {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, &scripted{agent: echo}, testLaunch())
			r.await(t, r.is(Running))
			refused := func(why string) {
				t.Helper()
				if _, err := end(r, time.Hour); banger.CodeOf(err) != banger.Busy {
					t.Fatalf("a VM that %s: %v", why, err)
				}
				if s, err := r.Status(t.Context()); err != nil || s.State != Running {
					t.Fatalf("a VM that %s is then %s, %v", why, s.State, err)
				}
			}
			r.unused(time.Hour - time.Minute)
			refused("was used within the time")
			s, err := r.Conn().Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"cat"}, Stdin: true}.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			r.awaitStreams(t, 1)
			r.unused(time.Hour)
			refused("runs a command")
			s.Reset()
			r.awaitStreams(t, 0)
			refused("ran a command a moment ago")
			for why, u := range map[string]guestwire.Unattended{
				"runs a detached command":   {Running: 1},
				"ran one a short while ago": {EndedMillis: (time.Hour - time.Minute).Milliseconds()},
			} {
				r.machine.unattended.Store(&u)
				r.unused(time.Hour)
				refused(why)
			}
			// What is so long ago that it does not fit a duration is no use to come.
			r.machine.unattended.Store(&guestwire.Unattended{EndedMillis: math.MaxInt64 / int64(time.Millisecond) * 3 / 2})
			r.unused(time.Hour)
			if e, err := end(r, time.Hour); err != nil || e.Failed() {
				t.Fatalf("an idle VM: %+v, %v", e, err)
			}
		})
	}
}

func TestPausedVMIsNotAskedForItsCommands(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	r.machine.unattended.Store(&guestwire.Unattended{Running: 1})
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.unused(time.Hour)
	if e, err := r.SuspendIdle(t.Context(), time.Hour); err != nil || e.Reason != ReasonSuspended {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestVMThatIsUsedWhileItIsSavedRunsOn(t *testing.T) {
	d := &scripted{agent: echo}
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Running))
	d.save = func(context.Context, *scriptedMachine, vmm.Saved) error {
		_, _, err := run(t, r.Conn(), "")
		return err
	}
	r.unused(time.Hour)
	if _, err := r.SuspendIdle(t.Context(), time.Hour); banger.CodeOf(err) != banger.Busy {
		t.Fatalf("it was suspended, or %v", err)
	}
	if was, err := ReadSuspended(r.dir); was != nil || err != nil {
		t.Errorf("left %+v, %v", was, err)
	}
	if said, status, err := run(t, r.Conn(), "on"); said != "on" || status != 7 || err != nil {
		t.Errorf("it says %q, %d, %v", said, status, err)
	}
}
