package store

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"banger"
)

func TestVMSurvivesARoundTrip(t *testing.T) {
	s := mustOpenWithImage(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))
	vm := banger.VM{
		ID: "v1", Name: "devbox", ImageID: "i1", GuestIP: "10.77.0.9", State: banger.StateStopped, CreatedAt: at, LastTouchedAt: at,
		Spec: banger.Spec{Layout: 1, VCPU: 1, MemoryMiB: 512, DiskBytes: 1 << 30, NAT: true, Allow: []string{"<a>&b"},
			Publish: []string{"80:80"}, Kernel: "k", Init: banger.InitSystemd, Ephemeral: true},
		Runtime: banger.Runtime{VMM: "qemu", Accel: "tcg", StartedAt: at.UTC(), EndedAt: at.UTC(), LastError: "gone", BootCount: 2},
		Stats:   banger.Stats{SampledAt: at.UTC(), CPUSeconds: 1.5, GuestProcs: 7},
	}
	must(t, s.UpsertVM(t.Context(), vm))
	got, err := s.VM(t.Context(), "v1")
	must(t, err)
	if got.UpdatedAt.Before(at) {
		t.Errorf("updated at %v", got.UpdatedAt)
	}
	vm.CreatedAt, vm.LastTouchedAt, vm.UpdatedAt = at.UTC(), at.UTC(), got.UpdatedAt
	vm.Runtime.GuestIP = vm.GuestIP
	if !reflect.DeepEqual(got, vm) {
		t.Errorf("wrote\n%+v\nread\n%+v", vm, got)
	}
	if text := query(t, s, "SELECT created_at FROM vms"); text != "2026-01-02T02:04:05.000000678Z" {
		t.Errorf("created_at is %s, want RFC 3339 in UTC", text)
	}
	byName, err := s.VMByName(t.Context(), "devbox")
	must(t, err)
	if byName.ID != "v1" {
		t.Errorf("found %s by name", byName.ID)
	}
}

func TestUpsertKeepsUnknownKeysWorkspaceAndCreation(t *testing.T) {
	s := mustOpenWithImage(t)
	vm := mustReserve(t, s, "devbox")
	created := vm.CreatedAt
	must(t, s.SetWorkspace(t.Context(), vm.ID, banger.Workspace{GuestPath: "/root/repo", Mode: "overlay"}))
	mustExec(t, s, `UPDATE vms SET
		spec_json = json_set(spec_json, '$.colour', 'red', '$.nested', json('{"a":{"b":null}}')),
		runtime_json = json_set(runtime_json, '$.pid', 12345678901234567, '$.last_error', 'old'),
		stats_json = '{"watts": 2.50}',
		workspace_json = json_set(workspace_json, '$.remote', 'origin')`)
	vm.Workspace = banger.Workspace{GuestPath: "/elsewhere"}
	vm.CreatedAt = created.Add(time.Hour)
	vm.Spec.VCPU = 7
	vm.Runtime.LastError = ""
	must(t, s.UpsertVM(t.Context(), vm))
	must(t, s.SetStats(t.Context(), vm.ID, banger.Stats{GuestProcs: 3}))
	must(t, s.SetState(t.Context(), vm.ID, banger.StateRunning, banger.Runtime{VMM: "qemu"}))
	must(t, s.SetWorkspace(t.Context(), vm.ID, banger.Workspace{GuestPath: "/root/repo", HeadCommit: "abc"}))

	for column, want := range map[string]map[string]string{
		"spec_json":      {"colour": `"red"`, "nested": `{"a":{"b":null}}`, "vcpu": "7"},
		"runtime_json":   {"pid": "12345678901234567", "last_error": "", "vmm": `"qemu"`, "guest_ip": `"10.77.0.2"`},
		"stats_json":     {"watts": "2.50", "guest_procs": "3"},
		"workspace_json": {"remote": `"origin"`, "guest_path": `"/root/repo"`, "head_commit": `"abc"`, "mode": ""},
	} {
		var got map[string]json.RawMessage
		must(t, json.Unmarshal([]byte(query(t, s, "SELECT "+column+" FROM vms")), &got))
		for k, v := range want {
			if string(got[k]) != v {
				t.Errorf("%s: %s is %s, want %s", column, k, got[k], v)
			}
		}
	}
	got, err := s.VM(t.Context(), vm.ID)
	must(t, err)
	if !got.CreatedAt.Equal(created) {
		t.Errorf("created_at moved from %v to %v", created, got.CreatedAt)
	}
	if got.State != banger.StateRunning || got.Runtime.VMM != "qemu" {
		t.Errorf("state %s, runtime %+v", got.State, got.Runtime)
	}
}

func TestBrokenJSONReadsAsDefaultsFieldByField(t *testing.T) {
	s := mustOpenWithImage(t)
	mustReserve(t, s, "devbox")
	for text, want := range map[string]int{
		`{"vcpu":5,"memory_mib":"lots","allow":7}`: 5,
		`{"vcpu":null}`:         banger.DefaultVCPU,
		`{"vcpu":"many"}`:       banger.DefaultVCPU,
		`{"memory_mib":512}`:    banger.DefaultVCPU,
		`[1,2]`:                 banger.DefaultVCPU,
		`null`:                  banger.DefaultVCPU,
		`{"vcpu":5`:             banger.DefaultVCPU,
		`{"vcpu":0}`:            0,
		` `:                     banger.DefaultVCPU,
		`{"VCPU":9,"vcpu":4}`:   4,
		`{"vcpu":6,"unknown":}`: banger.DefaultVCPU,
	} {
		_, err := s.db.Exec("UPDATE vms SET spec_json = ?, runtime_json = '{\"started_at\":\"\",\"vmm\":\"qemu\"}'", text)
		must(t, err)
		vm, err := s.VMByName(t.Context(), "devbox")
		must(t, err)
		if vm.Spec.VCPU != want || vm.Spec.DiskBytes != banger.DefaultDisk {
			t.Errorf("%s: read as %+v, want %d vcpu", text, vm.Spec, want)
		}
		if vm.Runtime.VMM != "qemu" {
			t.Errorf("an empty time hid the rest of the runtime: %+v", vm.Runtime)
		}
		must(t, s.UpsertVM(t.Context(), vm))
	}
}

func TestListSortsByInstantThenRow(t *testing.T) {
	s := mustOpenWithImage(t)
	for name, created := range map[string]string{
		"b": "2026-01-01T12:00:00+02:00", "c": "2026-01-01T10:00:00.5Z", "a": "2026-01-01T09:00:00-00:30", "d": "2026-01-01T23:00:00+12:00",
	} {
		vm := mustReserve(t, s, name)
		_, err := s.db.Exec("UPDATE vms SET created_at = ? WHERE id = ?", created, vm.ID)
		must(t, err)
	}
	vms, err := s.VMs(t.Context())
	must(t, err)
	if names(vms) != "a b c d" {
		t.Errorf("listed %q, want a b c d", names(vms))
	}
	mustExec(t, s, "UPDATE vms SET created_at = '2026-01-01T00:00:00Z'")
	vms, err = s.VMs(t.Context())
	must(t, err)
	for i := 1; i < len(vms); i++ {
		if a, b := rowid(t, s, vms[i-1].ID), rowid(t, s, vms[i].ID); a >= b {
			t.Errorf("row %d comes before row %d", a, b)
		}
	}
}

func rowid(t *testing.T, s *Store, id string) (n int) {
	t.Helper()
	must(t, s.db.QueryRow("SELECT rowid FROM vms WHERE id = ?", id).Scan(&n))
	return n
}

func TestTakenNameAndAddressAlreadyExist(t *testing.T) {
	s := mustOpenWithImage(t)
	first := mustReserve(t, s, "devbox")

	_, err := s.ReserveVM(t.Context(), newVM("devbox"), "10.77.0.0/16")
	wantError(t, err, banger.AlreadyExists, "cannot create VM devbox: there is a VM devbox already")
	if hints := fmt.Sprint(banger.HintsOf(err)); hints != "[banger vm start devbox banger vm exec devbox -- COMMAND]" {
		t.Errorf("hints %s", hints)
	}
	second := newVM("second")
	second.GuestIP = first.GuestIP
	_, err = s.ReserveVM(t.Context(), second, "10.77.0.0/16")
	wantError(t, err, banger.AlreadyExists, "address 10.77.0.2 is taken by VM devbox")
	same := newVM("same")
	same.ID = first.ID
	_, err = s.ReserveVM(t.Context(), same, "10.77.0.0/16")
	wantError(t, err, banger.AlreadyExists)

	second.GuestIP = ""
	second, err = s.ReserveVM(t.Context(), second, "10.77.0.0/16")
	must(t, err)
	second.Name = "devbox"
	wantError(t, s.UpsertVM(t.Context(), second), banger.AlreadyExists)
	mustReserve(t, s, "dev") // only the exact name counts
}

func TestDeleteAndLookUpWhatIsGone(t *testing.T) {
	s := mustOpenWithImage(t)
	vm := mustReserve(t, s, "devbox")
	for range 2 {
		must(t, s.DeleteVM(t.Context(), vm.ID))
	}
	_, err := s.VM(t.Context(), vm.ID)
	wantError(t, err, banger.NotFound, vm.ID)
	_, err = s.VMByName(t.Context(), "devbox")
	wantError(t, err, banger.NotFound, "cannot find VM devbox")
	wantError(t, s.SetWorkspace(t.Context(), vm.ID, banger.Workspace{}), banger.NotFound)
	wantError(t, s.SetState(t.Context(), vm.ID, banger.StateError, banger.Runtime{}), banger.NotFound)
	wantError(t, s.SetStats(t.Context(), vm.ID, banger.Stats{}), banger.NotFound)
	must(t, s.TouchVMs(t.Context(), map[string]time.Time{vm.ID: time.Now()}))
}

func TestTouchOnlyMovesForward(t *testing.T) {
	s := mustOpenWithImage(t)
	a, b := mustReserve(t, s, "a"), mustReserve(t, s, "b")
	future := a.LastTouchedAt.Add(time.Hour)
	must(t, s.TouchVMs(t.Context(), map[string]time.Time{a.ID: future, b.ID: b.LastTouchedAt.Add(-time.Hour)}))
	must(t, s.UpsertVM(t.Context(), a)) // a copy from before the touch
	gotA, err := s.VM(t.Context(), a.ID)
	must(t, err)
	gotB, err := s.VM(t.Context(), b.ID)
	must(t, err)
	if !gotA.LastTouchedAt.Equal(future) || !gotB.LastTouchedAt.Equal(b.LastTouchedAt) {
		t.Errorf("touched %v and %v, want %v and %v", gotA.LastTouchedAt, gotB.LastTouchedAt, future, b.LastTouchedAt)
	}
}

// What a caller does to a VM it was given must not show in the next listing.
func TestListingsShareNothing(t *testing.T) {
	s := mustOpenWithImage(t)
	vm := newVM("devbox")
	vm.Spec.Allow, vm.Spec.Publish = []string{"a"}, []string{"80:80"}
	vm, err := s.ReserveVM(t.Context(), vm, "10.77.0.0/16")
	must(t, err)
	for range 2 {
		vms, err := s.VMs(t.Context())
		must(t, err)
		if got := fmt.Sprint(len(vms), vms[0].Spec.Allow, vms[0].Spec.Publish); got != "1 [a] [80:80]" {
			t.Errorf("listed %s", got)
		}
		vms[0].Spec.Allow[0], vms[0].Spec.Publish[0] = "changed", "changed"
	}
	vm.Spec.Allow[0] = "b"
	must(t, s.UpsertVM(t.Context(), vm))
	vms, err := s.VMs(t.Context())
	must(t, err)
	if vms[0].Spec.Allow[0] != "b" {
		t.Error("the listing is stale")
	}
	must(t, s.DeleteVM(t.Context(), vm.ID))
	vms, err = s.VMs(t.Context())
	must(t, err)
	if len(vms) != 0 || len(s.memo.rows) != 0 {
		t.Errorf("%d VMs listed and %d remembered after the deletion", len(vms), len(s.memo.rows))
	}
}

func BenchmarkList1000VMs(b *testing.B) {
	s := mustOpenWithImage(b)
	for i := range 1000 {
		vm := newVM(fmt.Sprintf("vm-%d", i))
		vm.Stats = banger.Stats{SampledAt: time.Now(), CPUSeconds: 1.5}
		vm, err := s.ReserveVM(b.Context(), vm, "10.77.0.0/16")
		must(b, err)
		must(b, s.SetWorkspace(b.Context(), vm.ID, banger.Workspace{GuestPath: "/root/repo", PreparedAt: time.Now()}))
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s.memo.forgetAllBut(nil)
			list1000(b, s)
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			list1000(b, s)
		}
	})
}

func list1000(b *testing.B, s *Store) {
	vms, err := s.VMs(b.Context())
	if err != nil || len(vms) != 1000 {
		b.Fatal(len(vms), err)
	}
}

func BenchmarkOpen(b *testing.B) {
	path := newPath(b)
	mustOpen(b, path).Close()
	for b.Loop() {
		s, err := Open(b.Context(), path)
		must(b, err)
		s.Close()
	}
}

func TestSetStatesChangesAllOrNone(t *testing.T) {
	s := mustOpenWithImage(t)
	a, b := mustReserve(t, s, "a"), mustReserve(t, s, "b")
	wantError(t, s.SetStates(t.Context(), banger.StateRunning, map[string]banger.Runtime{a.ID: {}, b.ID: {}, banger.NewID(): {}}), banger.NotFound)
	for _, vm := range []banger.VM{a, b} {
		if got, err := s.VM(t.Context(), vm.ID); err != nil || got.State != vm.State {
			t.Errorf("%s is %s, %v", vm.Name, got.State, err)
		}
	}
	must(t, s.SetStates(t.Context(), banger.StateRunning, map[string]banger.Runtime{a.ID: {VMM: "x"}, b.ID: {VMM: "y"}}))
	for _, vm := range []banger.VM{a, b} {
		if got, err := s.VM(t.Context(), vm.ID); err != nil || got.State != banger.StateRunning || got.Runtime.VMM == "" || got.Runtime.GuestIP != vm.GuestIP {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
