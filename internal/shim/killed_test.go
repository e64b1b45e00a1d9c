package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// stuck is a fake that saves files right in form, and stays for ever in one
// place, saying so by a file in the VM's directory. Its shim can then be
// killed there.
type stuck struct {
	vmmtest.Fake
	where string
}

type stuckMachine struct {
	vmm.Machine
	driver stuck
	dir    string
}

func (d stuck) Name() string { return "stuck" }

func (d stuck) at(place, dir string) {
	if d.where == place {
		_ = os.WriteFile(filepath.Join(dir, "here"), nil, 0o600)
		select {}
	}
}

func (d stuck) Boot(ctx context.Context, cfg vmm.Config, out vmm.IO) (vmm.Machine, error) {
	m, err := d.Fake.Boot(ctx, cfg, out)
	return stuckMachine{m, d, cfg.Dir}, err
}

func (d stuck) Restore(_ context.Context, cfg vmm.Config, _ vmm.Source, _ vmm.IO) (vmm.Machine, error) {
	d.at("restore", cfg.Dir)
	return nil, banger.Errorf(banger.BadRequest, "no fake can be restored")
}

func (m stuckMachine) Save(ctx context.Context, to vmm.Saved, _ func() error) error {
	if err := os.WriteFile(to.Memory, []byte("memory"), 0o600); err != nil {
		return err
	}
	m.driver.at("save", m.dir)
	state, err := vmm.StateOf("stuck", "1", vmm.Config{}).Encode()
	return errors.Join(err, os.WriteFile(to.State, state, 0o600), m.Pause(ctx))
}

func (m stuckMachine) Signal(sig os.Signal) error {
	m.driver.at("end", m.dir)
	return m.Machine.Signal(sig)
}

// killIn starts a VM, has do something begin that does not end, and kills the
// shim in the middle of it. The VMM is gone then.
func killIn(t *testing.T, where string, dir paths.VM, restore *Restore, do func(*Client)) {
	t.Helper()
	l := fakeLaunch(t, dir)
	l.Driver, l.Restore = "stuck in "+where, restore
	began := make(chan struct{})
	go func() {
		defer close(began)
		c, err := starter(t).Start(t.Context(), dir, l)
		if err != nil {
			return // it is killed while it starts
		}
		defer c.Close()
		do(c)
	}()
	for deadline := time.Now().Add(time.Minute); !exists(filepath.Join(string(dir), "here")); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not get there")
		}
	}
	if err := KillRecorded(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := os.Remove(filepath.Join(string(dir), "here")); err != nil {
		t.Fatal(err)
	}
	if e, err := ReadExit(dir); e != nil || err != nil {
		t.Errorf("recorded %+v, %v", e, err)
	}
}

func suspendAndLose(c *Client) { _, _ = c.Suspend(context.Background()) }

// startAgain starts the VM with a shim that gets stuck nowhere.
func startAgain(t *testing.T, dir paths.VM, restore *Restore) Status {
	t.Helper()
	l := fakeLaunch(t, dir)
	l.Driver, l.Restore = "stuck in nothing", restore
	c, err := starter(t).Start(t.Context(), dir, l)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, status, err := sh(t, c, "true"); status != 0 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func isSuspended(t *testing.T, dir paths.VM) bool {
	t.Helper()
	s, err := ReadSuspended(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s != nil
}

func TestShimKilledWhileSavingLeavesAVMAfterAPowerCut(t *testing.T) {
	dir := paths.VM(t.TempDir())
	killIn(t, "save", dir, nil, suspendAndLose)
	if isSuspended(t, dir) || !exists(dir.Scratch("suspended")) {
		t.Fatalf("left: %q", names(t, string(dir)))
	}
	startAgain(t, dir, nil)
	if exists(dir.Scratch("suspended")) {
		t.Error("what was half saved is still there")
	}
}

func TestShimKilledAfterTheVMWasSuspendedLeavesItSo(t *testing.T) {
	dir := paths.VM(t.TempDir())
	killIn(t, "end", dir, nil, suspendAndLose)
	if !isSuspended(t, dir) || exists(dir.Scratch("suspended")) {
		t.Fatalf("left: %q", names(t, string(dir)))
	}
	// All is there: the driver is asked to restore it.
	if s := startAgain(t, dir, &Restore{Suspended: true}); s.NotRestored != "no fake can be restored" {
		t.Errorf("%+v", s)
	}
}

func TestResumeIsNotCutOff(t *testing.T) {
	dir := paths.VM(t.TempDir())
	killIn(t, "end", dir, nil, suspendAndLose)
	l := fakeLaunch(t, dir)
	l.Driver, l.Restore = "stuck in nothing", &Restore{Suspended: true}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := starter(t).Start(ctx, dir, l)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestShimKilledWhileResumingLeavesAVMAfterAPowerCut(t *testing.T) {
	dir := paths.VM(t.TempDir())
	killIn(t, "end", dir, nil, suspendAndLose)
	killIn(t, "restore", dir, &Restore{Suspended: true}, nil)
	if isSuspended(t, dir) {
		t.Fatal("it is suspended, and its machine may have run")
	}
	if s := startAgain(t, dir, &Restore{Suspended: true}); s.Restored != "" || s.NotRestored == "" {
		t.Errorf("%+v", s)
	}
	if exists(dir.Scratch("resumed")) {
		t.Error("the machine is still there")
	}
}
