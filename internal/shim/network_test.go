package shim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
	"banger/internal/vnet"
	"banger/internal/vnet/reach"
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
	frame.Write(reach.GuestMAC)
	frame.Write([]byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1})
	frame.Write(reach.GuestMAC)
	frame.Write([]byte{10, 77, 0, 2, 0, 0, 0, 0, 0, 0, 10, 77, 0, 1})
	if err := m.card.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.card.Write(frame.Bytes()); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 100)
	if n, err := m.card.Read(answer); err != nil || !bytes.Equal(answer[6:12], reach.GatewayMAC) {
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
		want := guestwire.Network{MAC: [6]byte(reach.GuestMAC), Address: [4]byte{10, 77, 0, 2}, Gateway: [4]byte{10, 77, 0, 1}, GatewayMAC: [6]byte(reach.GatewayMAC)}
		if got := m.setup.Load().Network; got == nil || *got != want {
			t.Errorf("the guest was told %+v", got)
		}
	}
}

// sendDatagram sends a datagram from the guest and gives the protocol of the answer.
func sendDatagram(t *testing.T, m *scriptedMachine, to netip.AddrPort) (protocol byte) {
	t.Helper()
	ip := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 2}
	ip = append(ip, to.Addr().AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	datagram := binary.BigEndian.AppendUint16([]byte{0x12, 0x34}, to.Port())
	datagram = append(datagram, 0, 9, 0, 0, 'x') // no checksum
	frame := slices.Concat(reach.GatewayMAC, reach.GuestMAC, []byte{8, 0}, ip, datagram)
	if err := m.card.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.card.Write(frame); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 2000)
	if n, err := m.card.Read(answer); err != nil || n < 34 {
		t.Fatalf("the answer is %x (%v)", answer[:n], err)
	}
	return answer[23]
}

func TestTrafficTouchesAndKnockingDoesNot(t *testing.T) {
	host, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	go func() {
		b := make([]byte, 100)
		for n, from, err := host.ReadFrom(b); err == nil; n, from, err = host.ReadFrom(b) {
			_, _ = host.WriteTo(b[:n], from)
		}
	}()
	port := netip.MustParseAddrPort(host.LocalAddr().String()).Port()
	rule := fmt.Sprintf("host.vm:%d", port)
	r := newRig(t, &scripted{agent: echo, cable: true}, networkedLaunch(Reach{Allow: []string{rule}}))
	before := r.await(t, r.is(Running))
	askGateway(t, r.machine)
	const icmp, udp = 1, 17
	if got := sendDatagram(t, r.machine, netip.MustParseAddrPort("192.0.2.1:9")); got != icmp {
		t.Fatalf("the answer is of protocol %d", got)
	}
	if again, err := r.Status(t.Context()); err != nil || !again.LastTouched.Equal(before.LastTouched) {
		t.Fatalf("touched %v, then %v by a refusal, %v", before.LastTouched, again.LastTouched, err)
	}
	if got := sendDatagram(t, r.machine, netip.AddrPortFrom(netip.MustParseAddr("10.77.0.1"), port)); got != udp {
		t.Fatalf("the answer is of protocol %d", got)
	}
	for deadline := time.Now().Add(time.Minute); ; { // its bytes are on their way before they are counted
		after, err := r.Status(t.Context())
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("touched %v, then %v, %v", before.LastTouched, after.LastTouched, err)
		}
		if after.LastTouched.After(before.LastTouched) {
			break
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
	if got := inForce(r); got != "nat 10.1.2.3:80" {
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
		if got := inForce(r); got != want {
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

func TestRecordsOfTheNetworkOutliveTheShim(t *testing.T) {
	l := networkedLaunch(Reach{})
	dir := vmDir(t, l)
	// run is one shim's life, and what it knows.
	run := func(l Launch, more ...reach.Record) []string {
		t.Helper()
		r := rigIn(t, dir, &scripted{agent: echo, cable: true}, l)
		r.shim.network.Recall(more)
		report, err := r.Network(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = r.shim.kill(ReasonKilled, syscall.SIGKILL)
		<-r.ended
		return report.Learned
	}
	run(l, reach.Record{Protocol: "tcp", Name: "example.com", Port: 443, Refused: 2, Rule: "example.com:443"})
	if got := run(l); !slices.Equal(got, []string{"example.com:443"}) {
		t.Errorf("the next one knows of %q", got)
	}
	for what, text := range map[string]string{"broken": "[{", "huge": "[" + strings.Repeat(" ", maxNetworkFile) + "]"} {
		if err := os.WriteFile(dir.Network(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := run(l); len(got) > 0 {
			t.Errorf("of a %s file came %q", what, got)
		}
	}
	_ = os.Remove(dir.Network())
	l.Ephemeral = true
	run(l, reach.Record{Protocol: "tcp", Name: "example.com", Port: 443})
	if _, err := os.Stat(dir.Network()); err == nil {
		t.Error("a VM that is deleted at its end writes for the next")
	}
}

// inForce is the policy of a rig's network.
func inForce(r *rig) string { return r.shim.network.(*vnet.Network).Policy().String() }
