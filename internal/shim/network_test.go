package shim

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
	"banger/internal/vnet"
)

func networkedLaunch(r Reach) Launch {
	l := testLaunch()
	l.Machine.NIC = NIC()
	l.Network = &Network{
		Guest: netip.MustParseAddr("10.77.0.2"), Gateway: netip.MustParseAddr("10.77.0.1"), Reach: r,
		VMs: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")},
	}
	return l
}

// askGateway asks on the cable where the gateway is, and whether somebody says.
func askGateway(t *testing.T, m *scriptedMachine) {
	t.Helper()
	var frame bytes.Buffer
	frame.Write(bytes.Repeat([]byte{0xff}, 6))
	frame.Write(vnet.GuestMAC)
	frame.Write([]byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1})
	frame.Write(vnet.GuestMAC)
	frame.Write([]byte{10, 77, 0, 2, 0, 0, 0, 0, 0, 0, 10, 77, 0, 1})
	if err := m.card.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.card.Write(frame.Bytes()); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 100)
	if n, err := m.card.Read(answer); err != nil || !bytes.Equal(answer[6:12], vnet.GatewayMAC) {
		t.Fatalf("the answer is %x (%v)", answer[:n], err)
	}
}

func TestCableOfEveryBootIsServed(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, cable: true}, networkedLaunch(Reach{}))
	r.await(t, r.is(Running))
	askGateway(t, r.machine)
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	again := <-r.driver.boots
	askGateway(t, again)
	r.await(t, func(s Status) bool { return s.State == Running && s.Boots == 2 })
	for _, m := range []*scriptedMachine{r.machine, again} {
		want := guestwire.Network{MAC: [6]byte(vnet.GuestMAC), Address: [4]byte{10, 77, 0, 2}, Gateway: [4]byte{10, 77, 0, 1}, GatewayMAC: [6]byte(vnet.GatewayMAC)}
		if got := m.setup.Load().Network; got == nil || *got != want {
			t.Errorf("the guest was told %+v", got)
		}
	}
}

func TestReachChangesAtOnceAndIsKept(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, cable: true}, networkedLaunch(Reach{Allow: []string{"example.com:443"}}))
	if now, err := r.Status(t.Context()); err != nil || now.Reach == nil || now.Reach.NAT || now.Reach.Allow[0] != "example.com:443" {
		t.Fatalf("it may reach %+v, %v", now.Reach, err)
	}
	if _, err := r.Allow(t.Context(), Reach{Allow: []string{"not a name"}}); banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "position 4") {
		t.Errorf("a bad rule: %v", err)
	}
	want := Reach{NAT: true, Allow: []string{"10.1.2.3:80"}}
	if _, err := r.Allow(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	r.await(t, func(s Status) bool { return s.Reach.NAT })
	n, err := r.Network(t.Context())
	if err != nil || !n.NAT || !slices.Equal(n.Allow, want.Allow) {
		t.Errorf("it tells %+v, %v", n, err)
	}
	if got := r.shim.network.Policy().String(); got != "nat 10.1.2.3:80" {
		t.Errorf("in force is %s", got)
	}
	if err := r.Keep(t.Context()); err != nil { // writes down how it is launched
		t.Fatal(err)
	}
	if l, err := ReadLaunch(r.dir); err != nil || !l.Network.NAT {
		t.Errorf("written down is %+v, %v", l.Network, err)
	}
}

func TestAProxyIsOpenWhileTheInternetIs(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, cable: true}, networkedLaunch(Reach{}))
	const proxy, other = "host.vm:3128", "10.1.2.3:8080"
	if err := r.OpenProxy(t.Context(), []string{proxy}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("without the internet: %v", err)
	}
	allow := func(reach Reach) {
		t.Helper()
		if _, err := r.Allow(t.Context(), reach); err != nil {
			t.Fatal(err)
		}
	}
	inForce := func(want string) {
		t.Helper()
		if got := r.shim.network.Policy().String(); got != want {
			t.Errorf("in force is %q, not %q", got, want)
		}
	}
	allow(Reach{NAT: true})
	for _, rules := range [][]string{{proxy}, {proxy, other}} {
		if err := r.OpenProxy(t.Context(), rules); err != nil {
			t.Fatal(err)
		}
	}
	inForce("nat host.vm:3128 10.1.2.3:8080")
	if err := r.OpenProxy(t.Context(), []string{"not a name"}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("a bad rule: %v", err)
	}
	allow(Reach{NAT: true, Allow: []string{"10.0.0.9"}})
	inForce("nat 10.0.0.9 host.vm:3128 10.1.2.3:8080")
	if n, err := r.Network(t.Context()); err != nil || !slices.Equal(n.Allow, []string{"10.0.0.9"}) {
		t.Errorf("its row would say %q, %v", n.Allow, err)
	}
	allow(Reach{})
	inForce("none")
	allow(Reach{NAT: true})
	inForce("nat")
}

func TestMachineWithoutACardHasNoNetworkToChange(t *testing.T) {
	l := networkedLaunch(Reach{NAT: true})
	l.Machine.NIC = nil // as one that was suspended by a banger that gave none
	r := newRig(t, &scripted{agent: echo}, l)
	r.await(t, r.is(Running))
	if now, err := r.Status(t.Context()); err != nil || now.Reach != nil {
		t.Errorf("it may reach %+v, %v", now.Reach, err)
	}
	if n := r.machine.setup.Load().Network; n != nil {
		t.Errorf("the guest was told %+v", n)
	}
	_, err := r.Allow(t.Context(), Reach{})
	if banger.CodeOf(err) != banger.Unavailable || !slices.Contains(banger.HintsOf(err), "banger vm restart devbox") {
		t.Errorf("changing it: %v %q", err, banger.HintsOf(err))
	}
	if line, err := r.Explain(t.Context(), time.Time{}); line != "" || err != nil {
		t.Errorf("explained as %q, %v", line, err)
	}
}
