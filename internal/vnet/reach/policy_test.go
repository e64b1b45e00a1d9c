package reach

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"banger"
)

func mustPolicy(t testing.TB, nat bool, allow ...string) *Policy {
	t.Helper()
	p, err := ParsePolicy(nat, allow)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ground is a host with one public and one private address, whose VMs live in
// the default range.
var ground = Ground{
	Own: func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("192.168.1.5")}
	},
	VMs: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")},
}

func TestRulesAreReadAndPrinted(t *testing.T) {
	for text, want := range map[string]string{
		"example.com":           "example.com",
		"Example.COM.:443":      "example.com:443",
		"*.example.com":         "*.example.com",
		"*.Example.com:80":      "*.example.com:80",
		"10.1.2.3":              "10.1.2.3",
		"10.1.2.3/32:443":       "10.1.2.3:443",
		"10.0.0.0/8":            "10.0.0.0/8",
		"0.0.0.0/0":             "0.0.0.0/0",
		"192.0.2.0/24:65535":    "192.0.2.0/24:65535",
		"host.vm:8080":          "host.vm:8080",
		"_srv.xn--bcher-kva.de": "_srv.xn--bcher-kva.de",
		"registry:5000":         "registry:5000",
	} {
		r, err := parseRule(text)
		if err != nil || r.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, r, err, want)
		}
	}
}

func TestBadRulesSayWhatAndWhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "empty"},
		{"https://example.com", "a URL is no rule (position 6)"},
		{"exa mple.com", "bad character ' ' (position 4)"},
		{"example.com:99999", "a port is a number from 1 to 65535 (position 13)"},
		{"example.com:0", "(position 13)"},
		{"example.com:", "(position 13)"},
		{"example.com:080", "(position 13)"},
		{"example.com:+80", "(position 13)"},
		{"[2001:db8::1]:443", "no IPv6 (position 1)"},
		{"::ffff:10.1.2.3", "no IPv6 (position 1)"},
		{"64:ff9b::10.1.2.3", "no IPv6 (position 3)"},
		{"10.1.2", "not an IPv4 address (position 1)"},
		{"10.1.2.300", "not an IPv4 address (position 1)"},
		{"010.1.2.3", "not an IPv4 address (position 1)"},
		{"10.1.2.3/33", "(position 10)"},
		{"10.1.2.3/08", "(position 10)"},
		{"10.1.2.3/8", "bits beyond the range (position 1)"},
		{"0.1.2.3", "an address of no host"},
		{"127.0.0.1:80", "a loopback address"},
		{"224.0.0.251", "a multicast"},
		{"255.255.255.255", "a multicast"},
		{"*", "as in *.example.com (position 1)"},
		{"*example.com", "(position 1)"},
		{"*.", "empty (position 3)"},
		{"a..b", "empty (position 3)"},
		{".a", "empty (position 1)"},
		{"-a.com", "begins with - (position 1)"},
		{"www.a-.com", "ends with - (position 6)"},
		{strings.Repeat("a", 64) + ".com", "longer than 63 characters (position 64)"},
		{strings.Repeat("a.", 130) + "com", "longer than 253 characters"},
		{"bücher.de", "bad character 'ü' (position 2)"},
		{"a.com\n", `bad character '\n' (position 6)`},
		{"localhost:80", "that is the guest"},
		{"host.vm", "port by port (position 8)"},
		{"host.vm:53", "own DNS (position 9)"},
		{"*.host.vm:80", "cannot reach each other"},
		{"other.vm:80", "cannot reach each other"},
		{"*.vm", "cannot reach each other"},
	} {
		_, err := ParsePolicy(false, []string{"example.com", c.text})
		if err == nil || banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) ||
			!strings.HasPrefix(err.Error(), fmt.Sprintf("cannot allow %q", c.text)) {
			t.Errorf("%q: %v; want %q", c.text, err, c.want)
		}
	}
}

func TestTooManyRulesAreRefused(t *testing.T) {
	if _, err := ParsePolicy(true, make([]string, maxRules+1)); err == nil || !strings.Contains(err.Error(), "1000 are the most") {
		t.Fatal(err)
	}
}

func TestPolicyDecides(t *testing.T) {
	none, nat := mustPolicy(t, false), mustPolicy(t, true)
	list := mustPolicy(t, false, "example.com:443", "*.example.org", "198.51.100.0/24:22", "10.1.2.3:443", "host.vm:8080")
	lan := mustPolicy(t, true, "10.0.0.0/8", "192.168.0.0/16")
	world := mustPolicy(t, false, "0.0.0.0/0")
	own := mustPolicy(t, false, "203.0.113.7:80")

	for _, c := range []struct {
		policy  *Policy
		addr    string
		port    uint16
		names   string
		allowed bool
		rule    string
	}{
		{none, "192.0.2.1", 443, "", false, "192.0.2.1:443"},
		{none, "192.0.2.1", 0, "", false, "192.0.2.1"},
		{none, "192.0.2.1", 443, "b.com a.com", false, "a.com:443"},
		{nat, "192.0.2.1", 443, "", true, ""}, // documentation ranges are ordinary
		{nat, "10.1.2.3", 443, "evil.com", false, "10.1.2.3:443"},
		{nat, "169.254.169.254", 80, "", false, "169.254.169.254:80"},
		{nat, "100.64.0.1", 80, "", false, "100.64.0.1:80"},
		{nat, "172.31.255.255", 80, "", false, "172.31.255.255:80"},
		{nat, "172.32.0.0", 80, "", true, ""},
		{nat, "127.0.0.1", 80, "", false, ""},
		{nat, "0.0.0.1", 80, "", false, ""},
		{nat, "224.0.0.1", 80, "", false, ""},
		{nat, "255.255.255.255", 80, "", false, ""},
		{nat, "203.0.113.7", 80, "", false, "203.0.113.7:80"}, // the host's own
		{nat, "203.0.113.8", 80, "", true, ""},
		{nat, "10.77.0.3", 80, "", false, ""}, // a VM: no rule opens it
		{nat, "::ffff:10.1.2.3", 80, "", false, "10.1.2.3:80"},
		{nat, "::ffff:192.0.2.1", 80, "", true, ""},
		{nat, "64:ff9b::10.1.2.3", 80, "", false, "10.1.2.3:80"},
		{nat, "64:ff9b:1::10.1.2.3", 80, "", false, "10.1.2.3:80"},
		{nat, "::10.1.2.3", 80, "", false, "10.1.2.3:80"},
		{nat, "2002:a01:203::1", 80, "", false, "10.1.2.3:80"},
		{nat, "2001:0:1:2:3:4:f5fe:fdfc", 80, "", false, "10.1.2.3:80"},
		{nat, "::1", 80, "", false, ""},
		{nat, "::", 80, "", false, ""},
		{nat, "fd00::1", 80, "", false, ""},
		{nat, "fe80::1%eth0", 80, "", false, ""},
		{nat, "ff02::1", 80, "", false, ""},
		{nat, "2001:db8::1", 80, "", true, ""},
		{list, "192.0.2.1", 443, "example.com", true, ""},
		{list, "192.0.2.1", 443, "x.com example.com", true, ""},
		{list, "192.0.2.1", 443, "", false, "192.0.2.1:443"}, // its twin by raw address
		{list, "192.0.2.1", 80, "example.com", false, "example.com:80"},
		{list, "192.0.2.1", 443, "a.example.com", false, "a.example.com:443"},
		{list, "192.0.2.1", 443, "badexample.com", false, "badexample.com:443"},
		{list, "192.0.2.1", 99, "a.b.example.org", true, ""},
		{list, "192.0.2.1", 99, "example.org", false, "example.org:99"},
		{list, "10.9.9.9", 443, "example.com", false, "10.9.9.9:443"}, // a name opens no refused range
		{list, "198.51.100.9", 22, "", true, ""},
		{list, "198.51.100.9", 23, "", false, "198.51.100.9:23"},
		{list, "10.1.2.3", 443, "", true, ""},
		{list, "10.1.2.3", 80, "", false, "10.1.2.3:80"},
		{list, "10.1.2.4", 443, "", false, "10.1.2.4:443"},
		{lan, "10.9.9.9", 1, "", true, ""},
		{lan, "10.77.0.3", 1, "", false, ""},
		{lan, "192.168.1.6", 1, "", true, ""},
		{lan, "192.168.1.5", 1, "", false, "192.168.1.5:1"}, // the host itself needs its own rule
		{lan, "172.16.0.1", 1, "", false, "172.16.0.1:1"},
		{world, "192.0.2.1", 1, "", true, ""},
		{world, "10.1.2.3", 1, "", false, "10.1.2.3:1"},
		{world, "203.0.113.7", 1, "", false, "203.0.113.7:1"},
		{own, "203.0.113.7", 80, "", true, ""},
		{own, "203.0.113.7", 81, "", false, "203.0.113.7:81"},
	} {
		v := c.policy.Check(ground, Destination{Addr: netip.MustParseAddr(c.addr), Port: c.port, Names: strings.Fields(c.names)})
		if v.Allowed != c.allowed || !c.allowed && v.Rule != c.rule || v.Allowed != (v.Why == "") {
			t.Errorf("%s: %s:%d (%s): %+v", c.policy, c.addr, c.port, c.names, v)
		}
	}
}

func TestHostIsOpenedPortByPort(t *testing.T) {
	p := mustPolicy(t, true, "host.vm:8080", "10.77.0.0/16")
	for port, want := range map[uint16]string{8080: "", 8081: "host.vm:8081", 0: ""} {
		v := p.Check(ground, Destination{Addr: netip.MustParseAddr("10.77.0.1"), Port: port, Host: true})
		if v.Allowed != (port == 8080) || !v.Allowed && v.Rule != want {
			t.Errorf("%d: %+v", port, v)
		}
	}
}

func TestNamesThatNeverGoUpstream(t *testing.T) {
	p := mustPolicy(t, true, "host.vm:80")
	for _, name := range []string{"host.vm", "other.vm.", "VM", "localhost", "a.localhost."} {
		if p.AllowsName(name) {
			t.Errorf("%s is allowed", name)
		}
	}
	if !p.AllowsName("Example.com.") || mustPolicy(t, false, "0.0.0.0/0").AllowsName("example.com") {
		t.Error("names are wrong")
	}
}

// What a refusal prints must open exactly that, in every mode, for any address
// and port: else the hint would lie.
func TestPrintedRuleOpensWhatWasRefused(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := []string{"10.%d.%d.%d", "192.168.1.5", "169.254.%d.%d", "%d.%d.%d.%d", "203.0.113.7", "::ffff:172.16.%d.%d", "64:ff9b::100.64.%d.%d", "127.0.0.%d"}
	opened := 0
	for range 5000 {
		text := pick[random.IntN(len(pick))]
		for strings.Contains(text, "%d") {
			text = strings.Replace(text, "%d", fmt.Sprint(random.IntN(256)), 1)
		}
		d := Destination{Addr: netip.MustParseAddr(text), Port: uint16(random.IntN(4))}
		if random.IntN(2) == 0 {
			d.Names = []string{"b.example.com"}
		}
		nat := random.IntN(2) == 0
		v := mustPolicy(t, nat).Check(ground, d)
		if v.Allowed || v.Rule == "" {
			continue
		}
		p := mustPolicy(t, nat, v.Rule)
		if got := p.Check(ground, d); !got.Allowed {
			t.Fatalf("%s does not open %+v: %+v", v.Rule, d, got)
		}
		other := d
		other.Port += 7
		if d.Port != 0 && !nat && p.Check(ground, other).Allowed {
			t.Fatalf("%s opens another port of %+v", v.Rule, d)
		}
		opened++
	}
	if opened < 1000 {
		t.Fatalf("only %d refusals were tried", opened)
	}
}

// Whatever is allowed by name, no refused range is reached.
func TestNoSetOfNamesOpensARefusedRange(t *testing.T) {
	p := mustPolicy(t, true, "*.com", "example.com", "*.example.com:443", "host.vm:443", "0.0.0.0/0", "8.0.0.0/5")
	random := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		v4 := netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		b := v4.As4()
		forms := []netip.Addr{v4, netip.AddrFrom16(v4.As16()),
			netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: b[0], 13: b[1], 14: b[2], 15: b[3]})}
		for _, addr := range forms {
			v := p.Check(ground, Destination{Addr: addr, Port: 443, Names: []string{"example.com", "a.example.com"}})
			if want := len(ground.refusals(v4)) == 0; v.Allowed != want {
				t.Fatalf("%s: %+v", addr, v)
			}
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"example.com:443", "*.a.b", "10.0.0.0/8:1", "host.vm:80", "1.2.3", "a:b:c", "[::1]:1", "*.", "-", "a./8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRule(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "cannot allow ") {
				t.Fatal(err)
			}
			return
		}
		again, err := parseRule(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is printed as %q, which reads as %v, %v", text, r, again, err)
		}
		if r.prefix.IsValid() == (r.name != "") {
			t.Fatalf("%q is both a name and an address: %+v", text, r)
		}
		p := &Policy{rules: []rule{r}}
		for _, k := range kinds {
			if v := p.Check(Ground{}, Destination{Addr: k.prefix.Addr(), Port: r.port}); v.Allowed && !(k.opens && slices.Contains(p.rules, r) && k.contains(r.prefix)) {
				t.Fatalf("%q opens %s", text, k.prefix)
			}
		}
	})
}
