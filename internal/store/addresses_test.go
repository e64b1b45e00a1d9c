package store

import (
	"fmt"
	"net/netip"
	"testing"

	"banger"
)

func TestReserveTakesTheFirstFreeAddress(t *testing.T) {
	s := mustOpenWithImage(t)
	a, b, c := mustReserve(t, s, "a"), mustReserve(t, s, "b"), mustReserve(t, s, "c")
	if got := a.GuestIP + " " + b.GuestIP + " " + c.GuestIP; got != "10.77.0.2 10.77.0.3 10.77.0.4" {
		t.Errorf("got %s", got)
	}
	if a.Runtime.GuestIP != a.GuestIP || query(t, s, "SELECT json_extract(runtime_json, '$.guest_ip') FROM vms WHERE name = 'a'") != a.GuestIP {
		t.Error("the copy in runtime_json is not the address")
	}
	must(t, s.DeleteVM(t.Context(), b.ID))
	if d := mustReserve(t, s, "d"); d.GuestIP != "10.77.0.3" {
		t.Errorf("got %s, want the one that became free", d.GuestIP)
	}
}

func TestNetworkRunsOutWithAClearError(t *testing.T) {
	s := mustOpenWithImage(t)
	for n := 2; n <= 254; n++ {
		vm, err := s.ReserveVM(t.Context(), newVM(fmt.Sprint("vm-", n)), "10.9.8")
		must(t, err)
		if want := fmt.Sprint("10.9.8.", n); vm.GuestIP != want {
			t.Fatalf("got %s, want %s", vm.GuestIP, want)
		}
	}
	_, err := s.ReserveVM(t.Context(), newVM("one-more"), "10.9.8")
	wantError(t, err, banger.Unavailable, "cannot create VM one-more: all 253 addresses of 10.9.8.0/24 are taken")
	if len(banger.HintsOf(err)) == 0 {
		t.Error("no hint")
	}
	if _, err := s.VMByName(t.Context(), "one-more"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("the refused VM has a row: %v", err)
	}
}

// The loopback address follows from the number alone.
func TestNumbersStayApartWhenTheNetworkChanges(t *testing.T) {
	s := mustOpenWithImage(t)
	ours := newVM("ours")
	ours.Spec.Layout = banger.Layout
	_, err := s.ReserveVM(t.Context(), ours, "10.77.0.0/16")
	must(t, err)
	other := newVM("of-another-tool")
	other.GuestIP = "172.16.0.3"
	must(t, s.UpsertVM(t.Context(), other))
	vm, err := s.ReserveVM(t.Context(), newVM("next"), "10.78.0.0/16")
	must(t, err)
	if vm.GuestIP != "10.78.0.3" {
		t.Errorf("got %s, want 10.78.0.3: number 2 is ours, and a row that cannot start does not hold 3", vm.GuestIP)
	}
}

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"10.77.0.0/16": "10.77.0.0/16", "172.16.0": "172.16.0.0/24", "10.77.3.4/16": "10.77.0.0/16", "10.0.0.0/8": "10.0.0.0/8",
		"": "", "10.77": "", "10.77.0.0": "", "10.77.0/24": "", "fd00::/64": "", "10.0.0.0/31": "", "1.2.x": "",
	} {
		p, err := ParseNetwork(text)
		if want == "" {
			wantError(t, err, banger.BadRequest, fmt.Sprintf("%q", text))
		} else if err != nil || p.String() != want {
			t.Errorf("%q: %v, %v; want %s", text, p, err, want)
		}
	}
}

func TestHostNumber(t *testing.T) {
	network := netip.MustParsePrefix("10.77.0.0/16")
	for address, want := range map[string]int{"10.77.0.2": 2, "10.77.1.0": 256, "10.77.255.254": 65534, "": -1, "::1": -1, "x": -1} {
		n, ok := HostNumber(network, address)
		if ok != (want >= 0) || ok && (n != want || numbered(network, n) != address) {
			t.Errorf("%s: %d, %v; want %d", address, n, ok, want)
		}
	}
}

func TestReserveVMsMakesAllOrNone(t *testing.T) {
	s := mustOpenWithImage(t)
	taken := mustReserve(t, s, "taken")
	a, b := newVM("a"), newVM("b")
	b.Workspace = banger.Workspace{GuestPath: "/root/repo"}
	_, err := s.ReserveVMs(t.Context(), []banger.VM{a, b, newVM("taken")}, "10.77.0.0/16")
	wantError(t, err, banger.AlreadyExists)
	if all, err := s.VMs(t.Context()); err != nil || names(all) != "taken" {
		t.Errorf("it left %q, %v", names(all), err)
	}
	rows, err := s.ReserveVMs(t.Context(), []banger.VM{a, b}, "10.77.0.0/16")
	if err != nil || len(rows) != 2 || rows[0].GuestIP == rows[1].GuestIP || rows[0].GuestIP == taken.GuestIP || rows[1].Workspace != b.Workspace {
		t.Errorf("%+v %v", rows, err)
	}
	if got, err := s.VM(t.Context(), b.ID); err != nil || got.Workspace != b.Workspace {
		t.Errorf("%+v %v", got, err)
	}
}
