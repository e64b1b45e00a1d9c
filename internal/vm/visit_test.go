package vm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"banger"
)

func stoppedVM(w *world) View {
	w.t.Helper()
	nat := true
	v := w.create(Create{Name: "devbox", Init: banger.InitSystemd, NAT: &nat, Publish: []string{"8080:80"}, Start: true, Wait: true})
	if _, err := w.Stop(w.t.Context(), v.ID, 0, quiet{}); err != nil {
		w.t.Fatal(err)
	}
	return v
}

func TestVisitRunsAVMForItsDiskAlone(t *testing.T) {
	for _, fails := range []error{nil, errors.New("no")} {
		w := newWorld(t)
		v := stoppedVM(w)
		w.config.InheritCA = true
		w.Trust = func() ([]byte, []string) { return []byte("of the host"), nil }
		err := w.Visit(t.Context(), v.ID, quiet{}, func(context.Context) error {
			l := w.shims.vms[v.ID].launch
			if l.Setup.Trust != "" {
				t.Errorf("it is to trust %q", l.Setup.Trust)
			}
			if l.OwnInit || l.Ports != nil || len(l.Network.Allow) > 0 || l.Network.NAT {
				t.Errorf("it runs as %+v with %+v and %+v", l, l.Ports, l.Network)
			}
			if now := w.get(v.ID); now.State != banger.StateStopped || now.HostAddress != "" || now.ShimPID == 0 {
				t.Errorf("to others it is %s at %q, shim %d", now.State, now.HostAddress, now.ShimPID)
			}
			return fails
		})
		if !errors.Is(err, fails) {
			t.Errorf("%v, not %v", err, fails)
		}
		w.want("dir vms/devbox", "row devbox stopped")
		if now := w.get(v.ID); now.Spec.Init != banger.InitSystemd || !now.Spec.NAT || now.Runtime.Visited || now.LastError != "" {
			t.Errorf("afterwards it is %+v", now)
		}
	}
}

// Whoever does what the hints say can visit the VM, whatever it was.
func TestVisitIsForStoppedVMsAndSaysHowToGetThere(t *testing.T) {
	for state, get := range map[banger.State]func(w *world, v View) error{
		banger.StateRunning:   func(*world, View) error { return nil },
		banger.StatePaused:    func(w *world, v View) error { _, err := w.Pause(w.t.Context(), v.ID); return err },
		banger.StateSuspended: func(w *world, v View) error { _, err := w.Suspend(w.t.Context(), v.ID, quiet{}); return err },
		banger.StateError:     func(w *world, v View) error { w.shims.vms[v.ID].crash(); return nil },
		banger.StateCreated:   nil,
	} {
		t.Run(string(state), func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: get != nil, Wait: get != nil})
			if get != nil {
				if err := get(w, v); err != nil {
					t.Fatal(err)
				}
			}
			w.eventually("it is "+string(state), func() bool { return w.get(v.ID).State == state })
			visit := func() error {
				return w.Visit(t.Context(), v.ID, quiet{}, func(context.Context) error { return nil })
			}
			err := visit()
			if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "it is "+string(state)) {
				t.Fatal(err)
			}
			for _, hint := range banger.HintsOf(err) {
				switch hint {
				case "banger vm start devbox":
					_, err = w.Start(t.Context(), v.ID, false, true, quiet{})
				case "banger vm stop devbox":
					_, err = w.Stop(t.Context(), v.ID, 0, quiet{})
				default:
					t.Errorf("the hint %q", hint)
				}
				if err != nil {
					t.Errorf("%s: %v", hint, err)
				}
			}
			if err := visit(); err != nil {
				t.Errorf("after what the hints say: %v", err)
			}
		})
	}
}

func TestVisitOfADeadDaemonIsEnded(t *testing.T) {
	for name, shimToo := range map[string]bool{"its VM runs on": false, "its VM is gone too": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := stoppedVM(w)
			_ = w.Visit(t.Context(), v.ID, quiet{}, func(context.Context) error {
				row, err := w.rows.VM(t.Context(), v.ID)
				if err != nil || !row.Runtime.Visited {
					t.Errorf("the row says %+v, %v", row.Runtime, err)
				}
				if shimToo {
					w.shims.vms[v.ID].crash()
				}
				w.reconcile() // of the next daemon
				w.want("dir vms/devbox", "row devbox stopped")
				if now := w.get(v.ID); now.Runtime.Visited || now.LastError != "" {
					t.Errorf("afterwards it is %+v", now)
				}
				return nil
			})
		})
	}
}

// A VM that ran on would be a stopped one to everybody, and to a start one that runs.
func TestVisitEndsAVMThatCannotBeStopped(t *testing.T) {
	w := newWorld(t)
	v := stoppedVM(w)
	w.shims.stopErr = errors.New("no")
	if err := w.Visit(t.Context(), v.ID, quiet{}, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	if w.shims.vms[v.ID].alive() {
		t.Error("it runs")
	}
	w.want("dir vms/devbox", "row devbox stopped")
	if now := w.get(v.ID); now.Runtime.Visited || now.LastError != "" {
		t.Errorf("afterwards it is %+v", now)
	}
}
