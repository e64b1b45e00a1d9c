package shim

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vnet/reach"
)

// suspendedVM is a VM that was suspended, and the launch that resumes it.
func suspendedVM(t *testing.T, d *scripted) (paths.VM, Launch) {
	t.Helper()
	l := testLaunch()
	l.Machine.Disks = []vmm.Disk{{Serial: "disk", Path: "disk.ext4"}}
	dir := vmDir(t, l)
	if err := os.WriteFile(dir.Disk(), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rigIn(t, dir, d, l)
	if e, err := r.Suspend(t.Context()); err != nil || e.Reason != ReasonSuspended || e.Failed() {
		t.Fatalf("%+v, %v", e, err)
	}
	if e := r.recorded(t); e.Reason != ReasonSuspended || e.VMM.Reason != vmm.Killed {
		t.Fatalf("recorded %+v", e)
	}
	l.Restore = &Restore{Suspended: true}
	return dir, l
}

// suspended is a driver whose machines know the host of the suspended VM in
// dir, once that is set.
func suspended(dir *paths.VM) *scripted {
	d := &scripted{agent: echo}
	d.restore = func(m *scriptedMachine) error {
		token, err := os.ReadFile(filepath.Join(string(*dir), "token"))
		if err != nil {
			return err
		}
		return spokenToWith(m, token)
	}
	return d
}

// keepToken notes what a restored guest answers to.
func keepToken(t *testing.T, dir paths.VM) *Suspended {
	t.Helper()
	s, err := ReadSuspended(dir)
	if err != nil || s == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := os.WriteFile(filepath.Join(string(dir), "token"), s.Token, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestSuspendedVMIsResumedOnceAndForAll(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	dir, l := suspendedVM(t, d)
	s := keepToken(t, dir)
	if s.At.IsZero() || s.Driver != "scripted" || s.SizeBytes <= 0 || len(s.Machine.Disks) != 1 {
		t.Errorf("recorded %+v", s)
	}
	know := d.restore
	d.restore = func(m *scriptedMachine) error {
		if exists(dir.Suspended()) {
			t.Error("it is still suspended when its vCPUs are to run")
		}
		if text, err := os.ReadFile(m.source.State); err != nil || len(text) == 0 {
			t.Errorf("state: %v", err)
		}
		return know(m)
	}
	r := rigIn(t, dir, d, l)
	st := r.await(t, r.is(Running))
	if st.Restored != RestoredSuspended || st.NotRestored != "" || st.Template != "" {
		t.Errorf("%+v", st)
	}
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	<-d.boots
	if st := r.await(t, func(s Status) bool { return s.State == Running && s.Boots == 2 }); st.Restored != "" {
		t.Errorf("after a reboot: %+v", st)
	}
	if _, err := r.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if exists(dir.Suspended()) || exists(dir.Scratch("resumed")) {
		t.Errorf("left: %q", names(t, string(dir)))
	}
}

func TestResumedVMCanBeSuspendedAgain(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	dir, l := suspendedVM(t, d)
	first := keepToken(t, dir)
	r := rigIn(t, dir, d, l)
	if _, err := r.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if second := keepToken(t, dir); string(second.Token) == string(first.Token) {
		t.Error("the token is that of the host before")
	}
	r = rigIn(t, dir, d, l)
	if st := r.await(t, r.is(Running)); st.Restored != RestoredSuspended {
		t.Errorf("%+v", st)
	}
}

func TestAResumedGuestGoesByTheNamesItWasTold(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	d.cable = true
	l := networkedLaunch(Reach{})
	l.Machine.Disks = []vmm.Disk{{Serial: "disk", Path: "disk.ext4"}}
	dir = vmDir(t, l)
	if err := os.WriteFile(dir.Disk(), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rigIn(t, dir, d, l)
	told := []reach.Answer{{Name: "example.com", Addr: netip.MustParseAddr("192.0.2.1"), Left: time.Hour}}
	r.shim.network.RecallAnswers(told)
	if _, err := r.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	keepToken(t, dir)
	l.Restore = &Restore{Suspended: true}
	r = rigIn(t, dir, d, l)
	r.await(t, r.is(Running))
	got := r.shim.network.Answers()
	if len(got) != 1 || got[0].Name != told[0].Name || got[0].Addr != told[0].Addr || got[0].Left > time.Hour {
		t.Errorf("it goes by %+v, was told %+v", got, told)
	}
}

func TestDamagedSuspendedMachineIsBooted(t *testing.T) {
	overwrite := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	for name, damage := range map[string]func(string) error{
		"another memory":     overwrite("memory", "mEmory"),
		"a short memory":     overwrite("memory", "mem"),
		"no memory":          remove("memory"),
		"another state":      overwrite("state", "banger machine state 1 sha256:00\n{}\n"),
		"an empty state":     overwrite("state", ""),
		"no state":           remove("state"),
		"half a record":      overwrite("record.json", `{"driver": "scri`),
		"no record":          remove("record.json"),
		"another driver":     overwrite("record.json", `{"driver":"other","token":"AAAAAAAAAAAAAAAAAAAAAA=="}`),
		"nothing at all":     os.RemoveAll,
		"an empty directory": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			var dir paths.VM
			d := suspended(&dir)
			dir, l := suspendedVM(t, d)
			keepToken(t, dir)
			if err := damage(dir.Suspended()); err != nil {
				t.Fatal(err)
			}
			d.restore = func(*scriptedMachine) error {
				t.Error("a machine was restored")
				return nil
			}
			r := rigIn(t, dir, d, l)
			if st := r.await(t, r.is(Running)); st.Restored != "" || st.NotRestored == "" {
				t.Errorf("%+v", st)
			}
			if exists(dir.Suspended()) {
				t.Error("it is still there")
			}
		})
	}
}

func TestSuspendedMachineThatNoLongerFitsIsBooted(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	dir, l := suspendedVM(t, d)
	d.restore = func(*scriptedMachine) error {
		return banger.Errorf(banger.BadRequest, "the machine that was saved is another one")
	}
	r := rigIn(t, dir, d, l)
	if st := r.await(t, r.is(Running)); !strings.Contains(st.NotRestored, "is another one") {
		t.Errorf("%+v", st)
	}
	if s, err := ReadSuspended(dir); s != nil || err != nil {
		t.Errorf("suspended %+v, %v", s, err)
	}
}

// startFailing starts a shim whose driver cannot restore.
func startFailing(t *testing.T, dir paths.VM, d *scripted, l Launch, restore func(*scriptedMachine) error) error {
	t.Helper()
	d.restore = restore
	d.boots = make(chan *scriptedMachine, 8)
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	opts := Options{Build: "test", Driver: func(string) (vmm.Driver, error) { return d, nil }, Network: testNetwork, Layers: testLayers}
	if l.Restore != nil {
		opts.memory = l.Restore.Memory
	}
	s, err := open(t.Context(), dir, opts, slog.New(slog.DiscardHandler))
	if err == nil {
		_ = s.kill(ReasonKilled, killSignal)
		s.run(t.Context())
	}
	return err
}

func TestStartThatFailsLeavesTheVMSuspended(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	know := d.restore
	dir, l := suspendedVM(t, d)
	keepToken(t, dir)
	gone := banger.Errorf(banger.NotFound, "the VMM is missing")
	if err := startFailing(t, dir, d, l, func(*scriptedMachine) error { return gone }); banger.CodeOf(err) != banger.NotFound || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v, hints %q", err, banger.HintsOf(err))
	}
	if exists(dir.Scratch("resumed")) {
		t.Error("it is in two places")
	}
	d.restore = know
	r := rigIn(t, dir, d, l)
	if st := r.await(t, r.is(Running)); st.Restored != RestoredSuspended {
		t.Errorf("%+v", st)
	}
}

func TestMachineThatRanIsNotResumedAgain(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	dir, l := suspendedVM(t, d)
	err := startFailing(t, dir, d, l, func(*scriptedMachine) error {
		if err := os.WriteFile(dir.Disk(), []byte("by the guest"), 0o600); err != nil {
			return err
		}
		return banger.Errorf(banger.Unavailable, "the VMM was killed")
	})
	if err != nil { // it is booted instead
		t.Fatal(err)
	}
	if exists(dir.Suspended()) {
		t.Error("it is suspended, with a disk that has changed")
	}
}

func TestBootForgetsTheSuspendedMachine(t *testing.T) {
	var dir paths.VM
	d := suspended(&dir)
	dir, l := suspendedVM(t, d)
	for _, left := range []string{"suspended", "resumed"} {
		if err := os.Mkdir(dir.Scratch(left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l.Restore = nil
	r := rigIn(t, dir, d, l)
	r.await(t, r.is(Running))
	if exists(dir.Suspended()) || exists(dir.Scratch("suspended")) {
		t.Errorf("left: %q", names(t, string(dir)))
	}
}

func TestCopyOfARunningMachineIsNeverBooted(t *testing.T) {
	l := restoreLaunch(t)
	l.Restore.Template, l.Restore.Strict = "", true
	t.Run("restored", func(t *testing.T) {
		r := newRig(t, &scripted{agent: echo, restore: spokenTo}, l)
		if st := r.await(t, r.is(Running)); st.Restored != RestoredFork || st.Template != "" {
			t.Fatalf("%+v", st)
		}
	})
	t.Run("refused", func(t *testing.T) {
		l := restoreLaunch(t)
		l.Restore.Template, l.Restore.Strict = "", true
		d := &scripted{agent: echo}
		err := startFailing(t, vmDir(t, l), d, l, func(*scriptedMachine) error {
			return banger.Errorf(banger.BadRequest, "QEMU cannot take it")
		})
		if err == nil || !strings.Contains(err.Error(), "QEMU cannot take it") || len(d.boots) != 0 {
			t.Fatalf("%d boots, %v", len(d.boots), err)
		}
	})
	t.Run("ends unheard", func(t *testing.T) {
		l := restoreLaunch(t)
		l.Restore.Template, l.Restore.Strict = "", true
		r := newRig(t, &scripted{agent: echo, restore: func(*scriptedMachine) error { return nil }}, l)
		r.machine.end(vmm.Exit{Reason: vmm.Crashed})
		if e := r.recorded(t); e.Reason != ReasonNeverReady || !strings.Contains(e.Message, "did not answer") {
			t.Fatalf("%+v", e)
		}
	})
}
