package reach

import (
	"net/netip"
	"slices"
	"strings"

	"banger"
)

// maxRules bounds a policy: every connection looks at all of its rules.
const maxRules = 1000

// Policy says what may leave a VM. The zero Policy lets nothing out. It is never
// changed once it is made.
type Policy struct {
	nat   bool
	rules []rule
}

// ParsePolicy reads a mode: none (no nat, no rules), an allow list, or nat, with
// which rules only open what is refused otherwise.
func ParsePolicy(nat bool, allow []string) (*Policy, error) {
	if len(allow) > maxRules {
		return nil, banger.Errorf(banger.BadRequest, "cannot allow %d destinations: %d are the most", len(allow), maxRules).
			Hint("a domain (*.example.com) or a range (192.0.2.0/24) allows many at once")
	}
	p := &Policy{nat: nat}
	for _, text := range allow {
		r, err := parseRule(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.rules, r) {
			p.rules = append(p.rules, r)
		}
	}
	return p, nil
}

// NAT says whether the mode is nat.
func (p *Policy) NAT() bool { return p.nat }

// String is the mode in the words of the spec line: "none", "nat", or the list.
func (p *Policy) String() string {
	words := p.Rules()
	if p.nat {
		words = append([]string{"nat"}, words...)
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// Rules gives the rules as they are printed, which ParsePolicy reads back.
func (p *Policy) Rules() []string {
	var all []string
	for _, r := range p.rules {
		all = append(all, r.String())
	}
	return all
}

// Destination is what a guest asks for. Names are those whose answers gave Addr;
// Host means the gateway, behind which is the host's 127.0.0.1. ICMP has no port.
type Destination struct {
	Addr  netip.Addr
	Port  uint16
	Names []string
	Host  bool
}

// Verdict is what the policy says of a destination.
type Verdict struct {
	Allowed bool
	Why     string // of a refusal
	Rule    string // what --allow opens it, "" where nothing does
	Name    string // the name it goes by in records, "" for its address
}

// Check says whether d may be reached. An address rule speaks for the range it
// names and opens a refused range only from inside: 0.0.0.0/0 is the internet and
// not the host's LAN. A name opens no refused range, whatever it resolves to.
func (p *Policy) Check(g Ground, d Destination) Verdict {
	if d.Host {
		return p.checkHost(d.Port)
	}
	addr, name := inner(d.Addr), firstOf(d.Names)
	if refused := g.refusals(addr); len(refused) > 0 {
		return p.checkRefused(refused, addr, d.Port, name)
	}
	v := Verdict{Allowed: p.nat, Name: name}
	for _, r := range p.rules {
		if !r.allowsPort(d.Port) {
			continue
		}
		v.Allowed = v.Allowed || r.prefix.Contains(addr)
		if at := slices.IndexFunc(d.Names, r.allowsName); at >= 0 {
			v.Allowed, v.Name = true, d.Names[at]
		}
	}
	if !v.Allowed {
		v.Why = WhyNotAllowed
	}
	v.Rule = rule{prefix: Single(addr), port: d.Port}.String()
	if v.Name != "" {
		v.Rule = rule{name: v.Name, port: d.Port}.String()
	}
	return v
}

func (p *Policy) checkHost(port uint16) Verdict {
	r := rule{name: HostName, port: port}
	v := Verdict{Name: HostName, Allowed: port != 0 && slices.Contains(p.rules, r)}
	if !v.Allowed {
		v.Why = "the host's loopback address is not allowed"
	}
	if port != 0 {
		v.Rule = r.String()
	}
	return v
}

func (p *Policy) checkRefused(refused []kind, addr netip.Addr, port uint16, name string) Verdict {
	v := Verdict{Name: name, Why: refused[len(refused)-1].what + " is refused in every mode"}
	for _, k := range refused {
		if !k.opens {
			v.Why = k.what + " is refused in every mode"
			return v
		}
	}
	if addr.Is4() {
		v.Rule = rule{prefix: Single(addr), port: port}.String()
	}
	if slices.ContainsFunc(p.rules, func(r rule) bool { return r.allowsPort(port) && r.opens(refused, addr) }) {
		v.Allowed, v.Why = true, ""
	}
	return v
}

// opens says whether r, which must be an address rule, lies inside every refused
// range that addr is in.
func (r rule) opens(refused []kind, addr netip.Addr) bool {
	if !r.prefix.IsValid() || !r.prefix.Contains(addr) {
		return false
	}
	return !slices.ContainsFunc(refused, func(k kind) bool { return !k.opens || !k.contains(r.prefix) })
}

// AllowsName says whether the guest may ask for a name's addresses.
func (p *Policy) AllowsName(name string) bool {
	name = Canonical(name)
	if name == "vm" || strings.HasSuffix(name, ".vm") || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return false // never upstream; the server knows host.vm itself
	}
	return p.nat || slices.ContainsFunc(p.rules, func(r rule) bool { return r.allowsName(name) })
}

// AllowsHost says whether any port of the host is open.
func (p *Policy) AllowsHost() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.name == HostName })
}

// AllowsAnswer says whether a name's answer may be addr: one in a refused range
// only where an address rule opens some port there.
func (p *Policy) AllowsAnswer(g Ground, addr netip.Addr) bool {
	addr = inner(addr)
	refused := g.refusals(addr)
	return len(refused) == 0 || slices.ContainsFunc(p.rules, func(r rule) bool { return r.opens(refused, addr) })
}

// Single is the range of one address.
func Single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func firstOf(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// WhyNotAllowed is the reason that nat would do away with.
const WhyNotAllowed = "not allowed"
