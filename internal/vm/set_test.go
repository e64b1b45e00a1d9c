package vm

import (
	"os"
	"slices"
	"strings"
	"testing"

	"banger"
)

func TestNetworkOfARunningVMChangesAtOnce(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Allow: []string{"example.com:443"}})
	launched := w.shims.vms[v.ID].launch
	if n := launched.Network; n == nil || n.Guest.String() != v.GuestIP || n.Gateway.String() != "10.77.0.1" || !slices.Equal(n.Allow, []string{"example.com:443"}) ||
		n.NAT || len(n.VMs) != 1 || n.VMs[0].String() != "10.77.0.0/16" || launched.Machine.NIC == nil {
		t.Fatalf("it was launched with the network %+v", n)
	}
	nat := true
	_, changes, err := w.Set(t.Context(), v.ID, Set{NAT: &nat, Allow: []string{"10.1.2.3:80", "example.com:443"}}, silent{})
	if err != nil || !slices.Equal(changes, []string{"network: allow example.com:443 -> nat example.com:443 10.1.2.3:80"}) {
		t.Errorf("%q, %v", changes, err)
	}
	if r := w.shims.vms[v.ID].status.Reach; !r.NAT || !slices.Equal(r.Allow, []string{"example.com:443", "10.1.2.3:80"}) {
		t.Errorf("in force is %+v", r)
	}
	if row := w.row(v.ID); !row.Spec.NAT || len(row.Spec.Allow) != 2 {
		t.Errorf("the row says %+v", row.Spec)
	}
	_, changes, err = w.Set(t.Context(), v.ID, Set{NoAllow: true, Allow: []string{"10.0.0.0/8"}}, silent{})
	if err != nil || !slices.Equal(changes, []string{"network: nat example.com:443 10.1.2.3:80 -> nat 10.0.0.0/8"}) {
		t.Errorf("%q, %v", changes, err)
	}
	if _, changes, err = w.Set(t.Context(), v.ID, Set{NAT: &nat}, silent{}); err != nil || len(changes) != 0 {
		t.Errorf("the same again: %q, %v", changes, err)
	}
}

func TestBadRulesAreRefusedBeforeAnythingIsMade(t *testing.T) {
	w := newWorld(t)
	before := w.String()
	_, err := w.Create(t.Context(), Create{Name: "devbox", Allow: []string{"https://example.com"}}, silent{})
	if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "a URL is no rule") {
		t.Errorf("create: %v", err)
	}
	if after := w.String(); after != before {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	if _, _, err := w.Set(t.Context(), v.ID, Set{Allow: []string{"127.0.0.1:80"}}, silent{}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("set: %v", err)
	}
	if row := w.row(v.ID); len(row.Spec.Allow) != 0 {
		t.Errorf("the row says %+v", row.Spec)
	}
}

// The daemon dies after the row and before the shim.
func TestReconcileFinishesAChangeOfTheNetwork(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	row := w.row(v.ID)
	row.Spec.NAT = true
	if err := w.rows.UpsertVM(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if r := w.shims.vms[v.ID].status.Reach; !r.NAT {
		t.Errorf("in force is %+v", r)
	}
}

// The daemon was killed when it had just started the shim, and the next one has not
// seen it.
func TestNetworkChangesUnderAShimThatNobodyKnowsOf(t *testing.T) {
	w := newWorld(t)
	on, off := true, false
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, NAT: &on})
	w.restart(w.Dirs)
	if _, _, err := w.Set(t.Context(), v.ID, Set{NAT: &off}, silent{}); err != nil {
		t.Fatal(err)
	}
	if r := w.shims.vms[v.ID].status.Reach; r.NAT {
		t.Errorf("in force is %+v", r)
	}
}

func TestShimThatIsFoundLateAgreesOnTheNetwork(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	row := w.row(v.ID)
	row.Spec.NAT = true
	if err := w.rows.UpsertVM(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	w.restart(w.Dirs)
	if _, err := w.Pause(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	if r := w.shims.vms[v.ID].status.Reach; !r.NAT {
		t.Errorf("in force is %+v", r)
	}
}

func TestShimWithoutANetworkSaysThatARestartChangesIt(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, DiskBytes: 2 << 30})
	w.shims.vms[v.ID].update(func() { w.shims.vms[v.ID].status.Reach = nil })
	w.restart(w.Dirs)
	w.reconcile()
	nat := true
	_, _, err := w.Set(t.Context(), v.ID, Set{NAT: &nat}, silent{})
	if banger.CodeOf(err) != banger.Unavailable || !slices.Contains(banger.HintsOf(err), "banger vm restart devbox") {
		t.Errorf("its network: %v", err)
	}
	if !w.row(v.ID).Spec.NAT {
		t.Error("the restart would not change it")
	}
	if _, _, err := w.Set(t.Context(), v.ID, Set{DiskBytes: 3 << 30}, silent{}); err != nil {
		t.Errorf("its disk: %v", err)
	}
}

func TestShimOfAnEphemeralVMWithoutANetworkIsNotToBeRestarted(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.shims.vms[v.ID].update(func() { w.shims.vms[v.ID].status.Reach = nil })
	nat := true
	_, _, err := w.Set(t.Context(), v.ID, Set{NAT: &nat}, silent{})
	if hints := banger.HintsOf(err); banger.CodeOf(err) != banger.Unavailable || !slices.Equal(hints, []string{withoutRm}) || strings.Contains(err.Error(), "started again") {
		t.Errorf("got %v, hints %q", err, hints)
	}
}

func TestShapeChangesWhenTheVMIsStopped(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	bigger := Set{VCPU: v.Spec.VCPU + 1, MemoryMiB: 300}
	_, _, err := w.Set(t.Context(), v.ID, bigger, silent{})
	if banger.CodeOf(err) != banger.Conflict || !slices.Contains(banger.HintsOf(err), "banger vm stop devbox") {
		t.Errorf("while it runs: %v", err)
	}
	if _, err := w.Stop(t.Context(), v.ID, 0, silent{}); err != nil {
		t.Fatal(err)
	}
	dry := bigger
	dry.DryRun = true
	if _, changes, err := w.Set(t.Context(), v.ID, dry, silent{}); err != nil || len(changes) != 2 || w.row(v.ID).Spec.MemoryMiB == 300 {
		t.Errorf("a dry run: %q, %v", changes, err)
	}
	if _, _, err := w.Set(t.Context(), v.ID, bigger, silent{}); err != nil || w.row(v.ID).Spec.MemoryMiB != 300 {
		t.Errorf("when it is stopped: %v", err)
	}
}

func TestDiskGrowsAlsoWhileTheVMRuns(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, DiskBytes: 2 << 30})
	for _, size := range []int64{3 << 30, 4 << 30} {
		if _, _, err := w.Set(t.Context(), v.ID, Set{DiskBytes: size}, silent{}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(w.Dirs.VM(v.ID).Disk())
		if err != nil || info.Size() != size || w.row(v.ID).Spec.DiskBytes != size {
			t.Errorf("the disk has %d bytes and the row says %d (%v)", info.Size(), w.row(v.ID).Spec.DiskBytes, err)
		}
		if s := w.shims.vms[v.ID]; s.alive() && s.grown != size {
			t.Errorf("the shim was told of %d bytes", s.grown)
		}
		if _, err := w.Stop(t.Context(), v.ID, 0, silent{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.Set(t.Context(), v.ID, Set{DiskBytes: 1 << 30}, silent{}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("smaller: %v", err)
	}
}

func TestSuspendedVMKeepsItsShape(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	if _, err := w.Suspend(t.Context(), v.ID, silent{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Set(t.Context(), v.ID, Set{MemoryMiB: 300}, silent{}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("its memory: %v", err)
	}
	nat := true
	if _, _, err := w.Set(t.Context(), v.ID, Set{NAT: &nat}, silent{}); err != nil {
		t.Errorf("its network: %v", err)
	}
	if _, err := w.Start(t.Context(), v.ID, false, true, silent{}); err != nil || !w.shims.vms[v.ID].launch.Network.NAT {
		t.Errorf("it came back with %+v, %v", w.shims.vms[v.ID].launch.Network, err)
	}
	if n, err := w.Network(t.Context(), v.ID); err != nil || !n.NAT {
		t.Errorf("it tells %+v, %v", n, err)
	}
}

// What a guest reached is told of one at rest too, from what its shim has left.
func TestTheNetworkOfAVMAtRestIsTold(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Allow: []string{"example.org"}})
	if n, err := w.Network(t.Context(), v.ID); err != nil || len(n.Records) > 0 || !slices.Equal(n.Allow, []string{"example.org"}) {
		t.Errorf("before its first start: %+v, %v", n, err)
	}
	kept := `[{"protocol":"tcp","name":"example.com","port":443,"open":1,"refused":2,"rule":"example.com:443"}]`
	if err := os.WriteFile(w.Dirs.VM(v.ID).Network(), []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := w.Network(t.Context(), v.ID)
	if err != nil || len(n.Records) != 1 || n.Records[0].Refused != 2 || n.Records[0].Open != 0 || !slices.Equal(n.Learned, []string{"example.com:443"}) {
		t.Errorf("got %+v, %v", n, err)
	}
	if err := os.WriteFile(w.Dirs.VM(v.ID).Network(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Network(t.Context(), v.ID); err == nil || !strings.Contains(err.Error(), "devbox") {
		t.Errorf("damaged: %v", err)
	}
}

// row is what the ledger says.
func (w *world) row(id string) banger.VM {
	w.t.Helper()
	row, err := w.rows.VM(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return row
}
