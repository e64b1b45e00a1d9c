package vm

import (
	"context"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
)

// idles has a VM's shim say that it has not been used for that long.
func (w *world) idles(id string, d time.Duration) {
	s := w.shims.vms[id]
	s.update(func() { s.status.IdleMillis = d.Milliseconds() })
}

func idleWorld(t *testing.T, action string) (*world, View) {
	w := newWorld(t)
	w.config.AutoStopStaleAfter, w.config.IdleAction = time.Hour, action
	return w, w.create(Create{Name: "devbox", Start: true, Wait: true})
}

func TestIdleVMIsEndedAsConfigured(t *testing.T) {
	for action, want := range map[string]banger.State{"stop": banger.StateStopped, "suspend": banger.StateSuspended} {
		w, v := idleWorld(t, action)
		w.idles(v.ID, time.Hour-time.Second)
		w.tend(t.Context())
		if l := w.liveOf(v.ID); !l.endTried.IsZero() {
			t.Errorf("%s: it is to end before its time", action)
		}
		w.idles(v.ID, time.Hour)
		w.tend(t.Context())
		w.eventually("it is "+string(want), func() bool { return w.get(v.ID).State == want })
	}
}

func TestVMIsNotIdle(t *testing.T) {
	p := idlePolicy{after: time.Hour}
	long := (2 * time.Hour).Milliseconds()
	for name, s := range map[string]shim.Status{
		"with a command":               {State: shim.Running, IdleMillis: long, Streams: 1},
		"with an owner":                {State: shim.Running, IdleMillis: long, Owners: 1},
		"that boots":                   {State: shim.Booting, IdleMillis: long},
		"that is being stopped":        {State: shim.Stopping, IdleMillis: long},
		"in trouble":                   {State: shim.Running, IdleMillis: long, Problem: "its agent was lost"},
		"that was used":                {State: shim.Running, IdleMillis: 1},
		"of a shim that does not know": {State: shim.Running},
	} {
		if p.stale(s) {
			t.Errorf("a VM %s is stale", name)
		}
	}
	idle := shim.Status{State: shim.Running, IdleMillis: long}
	if !p.stale(idle) || (idlePolicy{}).stale(idle) {
		t.Error("the policy itself")
	}
}

func TestVMThatIsUsedAtTheLastMomentStays(t *testing.T) {
	w, v := idleWorld(t, "stop")
	w.idles(v.ID, 2*time.Hour)
	all, err := w.uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.idles(v.ID, 0)
	w.endStale(t.Context(), all[0], idlePolicyOf(w.config))
	if got := w.get(v.ID).State; got != banger.StateRunning {
		t.Errorf("it is %s", got)
	}
}

func TestVMThatIsUsedAfterTheLastLookStays(t *testing.T) {
	for _, action := range []string{"stop", "suspend"} {
		w, v := idleWorld(t, action)
		w.idles(v.ID, 2*time.Hour)
		w.shims.onIdle = func(s *fakeShim) { s.update(func() { s.status.IdleMillis = 0 }) }
		all, err := w.uses(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.endStale(t.Context(), all[0], idlePolicyOf(w.config))
		if got := w.get(v.ID).State; got != banger.StateRunning {
			t.Errorf("%s: it is %s", action, got)
		}
	}
}

func TestIdleVMThatCannotBeEndedIsLeftAloneForAsLong(t *testing.T) {
	w, v := idleWorld(t, "suspend")
	l := w.liveOf(v.ID)
	now := time.Now()
	if !l.tryToEnd(now, time.Hour) || l.tryToEnd(now.Add(time.Hour-1), time.Hour) || !l.tryToEnd(now.Add(time.Hour), time.Hour) {
		t.Error("it is not tried once an hour")
	}
}

// A daemon that ends leaves a suspension to the shim, and the next one finds out.
func TestSuspensionOfAnIdleVMIsNotWaitedForAtTheDaemonsEnd(t *testing.T) {
	for name, late := range map[string]bool{"it ends before the next daemon": false, "it ends under the next daemon": true} {
		t.Run(name, func(t *testing.T) {
			w, v := idleWorld(t, "suspend")
			begun, goOn, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
			w.shims.saving = func(context.Context, *fakeShim) { close(begun); <-goOn }
			w.idles(v.ID, 2*time.Hour)
			w.tend(t.Context())
			<-begun
			m, s := w.Manager, w.shims.vms[v.ID]
			go func() { defer close(closed); m.close() }()
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				close(goOn)
				t.Fatal("the daemon waits for it")
			}
			if late {
				w.reconcile()
			}
			close(goOn)
			if w.eventually("it is suspended", func() bool { return !s.alive() }); !late {
				w.reconcile()
			}
			w.eventually("its row says so", func() bool { return w.row(v.ID).State == banger.StateSuspended })
		})
	}
}

func TestDaemonThatIsToEndEndsNoIdleVM(t *testing.T) {
	for _, action := range []string{"stop", "suspend"} {
		w, v := idleWorld(t, action)
		w.idles(v.ID, 2*time.Hour)
		all, err := w.uses(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ending := make(chan struct{})
		close(ending)
		w.Ending = ending
		w.endStale(t.Context(), all[0], idlePolicyOf(w.config))
		if got := w.get(v.ID).State; got != banger.StateRunning {
			t.Errorf("%s: it is %s", action, got)
		}
	}
}

func TestVMThatGoesWithItsOwnerIsNotEndedForBeingIdle(t *testing.T) {
	w, _ := idleWorld(t, "stop")
	v := w.create(Create{Name: "gone", Ephemeral: true, Start: true, Wait: true})
	w.idles(v.ID, 2*time.Hour)
	w.tend(t.Context())
	if l := w.liveOf(v.ID); l == nil || !l.endTried.IsZero() {
		t.Error("it is to end, which removes it")
	}
}

func TestShimThatHangsDelaysNoOther(t *testing.T) {
	w, _ := idleWorld(t, "stop")
	w.create(Create{Name: "b", Start: true, Wait: true})
	// Each answers once both are asked.
	var asked sync.WaitGroup
	asked.Add(2)
	w.shims.onStatus = func() {
		asked.Done()
		asked.Wait()
	}
	all, err := w.uses(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("%d of 2 answer, %v", len(all), err)
	}
}

func TestSampleDoesNotUndoWhatAGuestSaidMeanwhile(t *testing.T) {
	w, v := idleWorld(t, "stop")
	all, err := w.uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Stats(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	w.sampleAll()
	w.writeSamples(t.Context(), all)
	if row, err := w.rows.VM(t.Context(), v.ID); err != nil || row.Stats.GuestProcs != 9 || row.Stats.GuestSampledAt.IsZero() {
		t.Errorf("the ledger has %+v, %v", row.Stats, err)
	}
}

func TestSamplesFromOutsideKeepWhatTheGuestSaid(t *testing.T) {
	w, v := idleWorld(t, "stop")
	asked, err := w.Stats(t.Context(), v.ID)
	if err != nil || asked.GuestProcs != 9 || asked.GuestSampledAt.IsZero() {
		t.Fatalf("got %+v, %v", asked, err)
	}
	w.sampleAll()
	shown := w.get(v.ID).Stats
	if !shown.SampledAt.After(asked.SampledAt) || shown.ResidentBytes == 0 || shown.GuestProcs != 9 || !shown.GuestSampledAt.Equal(asked.GuestSampledAt) {
		t.Errorf("shown %+v", shown)
	}
	row, _ := w.rows.VM(t.Context(), v.ID)
	if !row.Stats.SampledAt.Equal(asked.SampledAt) {
		t.Error("a sample went to the ledger by itself")
	}
	w.tend(t.Context())
	if row, _ = w.rows.VM(t.Context(), v.ID); !row.Stats.SampledAt.Equal(shown.SampledAt) || row.Stats.GuestProcs != 9 {
		t.Errorf("the ledger has %+v", row.Stats)
	}
}
