package reach

import (
	"net/netip"
	"strconv"
	"strings"

	"banger"
)

// HostName is what the guest calls the host's 127.0.0.1.
const HostName = "host.vm"

// rule is one thing that is allowed: an address range, a name, every name below
// a domain, or a port of the host's loopback address.
type rule struct {
	prefix netip.Prefix // valid in an address rule alone
	name   string       // lower case, no dot at the end
	below  bool         // the names below name, not name itself
	port   uint16       // 0 for all
}

func (r rule) String() string {
	s := r.name
	switch {
	case r.prefix.IsValid() && r.prefix.IsSingleIP():
		s = r.prefix.Addr().String()
	case r.prefix.IsValid():
		s = r.prefix.String()
	case r.below:
		s = "*." + r.name
	}
	if r.port != 0 {
		s += ":" + strconv.Itoa(int(r.port))
	}
	return s
}

func (r rule) allowsPort(port uint16) bool { return r.port == 0 || r.port == port }

func (r rule) allowsName(name string) bool {
	if r.prefix.IsValid() {
		return false
	}
	if r.below {
		return strings.HasSuffix(name, "."+r.name)
	}
	return name == r.name
}

// CheckRule says what is wrong with a rule: bad_request.
func CheckRule(text string) error {
	_, err := parseRule(text)
	return err
}

// parseRule reads HOST[:PORT], *.DOMAIN[:PORT], CIDR[:PORT] or host.vm:PORT.
// Errors give the rule and the place in it, counted from 1.
func parseRule(text string) (rule, error) {
	if text == "" {
		return rule{}, banger.Errorf(banger.BadRequest, `cannot allow "": the rule is empty`)
	}
	if i := strings.Index(text, "://"); i >= 0 {
		return rule{}, badRule(text, i, "a URL is no rule").Hint("give the host alone, as in --allow example.com:443")
	}
	if strings.Count(text, ":") > 1 || strings.HasPrefix(text, "[") {
		return rule{}, badRule(text, strings.IndexAny(text, ":["), "more than a host and a port, and guests have no IPv6")
	}
	host, digits, hasPort := strings.Cut(text, ":")
	var r rule
	if hasPort {
		port, ok := parsePort(digits)
		if !ok {
			return rule{}, badRule(text, len(host)+1, "a port is a number from 1 to 65535")
		}
		r.port = port
	}
	if isAddress(host) {
		prefix, err := parseRange(text, host)
		r.prefix = prefix
		return r, err
	}
	return parseName(text, host, r)
}

func badRule(text string, at int, why string) *banger.Error {
	return banger.Errorf(banger.BadRequest, "cannot allow %q: %s (position %d)", text, why, at+1)
}

func parsePort(digits string) (uint16, bool) {
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return 0, false
	}
	return uint16(n), true
}

// isAddress says whether host is meant as an address: no domain's last label
// is a number, so 10.1.2 is a mistake and not a name.
func isAddress(host string) bool {
	if strings.Contains(host, "/") {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndex(host, ".")+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func parseRange(text, host string) (netip.Prefix, error) {
	address, bits, hasBits := strings.Cut(host, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, badRule(text, 0, "not an IPv4 address")
	}
	length := 32
	if hasBits {
		n, err := strconv.ParseUint(bits, 10, 8)
		if err != nil || n > 32 || strconv.FormatUint(n, 10) != bits {
			return netip.Prefix{}, badRule(text, len(address)+1, "the length of a range is a number from 0 to 32")
		}
		length = int(n)
	}
	prefix := netip.PrefixFrom(addr, length)
	if prefix != prefix.Masked() {
		return netip.Prefix{}, badRule(text, 0, "the address has bits beyond the range").
			Hint("--allow %s or --allow %s", prefix.Masked(), addr)
	}
	if k := kindOf(addr); k != nil && !k.opens && k.contains(prefix) {
		e := badRule(text, 0, k.what+" cannot be reached from a guest")
		if addr.IsLoopback() {
			return netip.Prefix{}, e.Hint("the host's own 127.0.0.1 is --allow host.vm:PORT")
		}
		return netip.Prefix{}, e
	}
	return prefix, nil
}

func parseName(text, host string, r rule) (rule, error) {
	name, start := host, 0
	if strings.HasPrefix(host, "*") {
		if !strings.HasPrefix(host, "*.") {
			return rule{}, badRule(text, 0, "* stands for the names below a domain, as in *.example.com").
				Hint("everything is --nat")
		}
		name, start, r.below = host[2:], 2, true
	}
	if at, why := badName(name); why != "" {
		return rule{}, badRule(text, start+at, why)
	}
	r.name = Canonical(name)
	switch {
	case r.name == "localhost" || strings.HasSuffix(r.name, ".localhost"):
		return rule{}, badRule(text, 0, "in a guest that is the guest").Hint("the host's own 127.0.0.1 is --allow host.vm:PORT")
	case r.name == HostName && !r.below && r.port == 0:
		return rule{}, badRule(text, len(host), "the host is opened port by port").Hint("--allow host.vm:PORT")
	case r.name == HostName && !r.below && r.port == 53:
		return rule{}, badRule(text, len(host)+1, "port 53 there is the guest's own DNS")
	case r.name != HostName && (r.name == "vm" || strings.HasSuffix(r.name, ".vm")), r.name == HostName && r.below:
		return rule{}, badRule(text, 0, "VMs cannot reach each other")
	}
	return r, nil
}

// badName gives the first mistake in a domain name and where it is.
func badName(name string) (at int, why string) {
	trimmed := strings.TrimSuffix(name, ".")
	if len(trimmed) > 253 {
		return 253, "the name is longer than 253 characters"
	}
	for i, label := 0, ""; ; i += len(label) + 1 {
		rest, more := trimmed[i:], false
		label, _, more = strings.Cut(rest, ".")
		for j, c := range label {
			if !IsNameCharacter(c) {
				return i + j, "bad character " + strconv.QuoteRune(c)
			}
		}
		switch {
		case label == "":
			return i, "a part of the name is empty"
		case len(label) > 63:
			return i + 63, "a part of the name is longer than 63 characters"
		case label[0] == '-':
			return i, "a part of the name begins with -"
		case label[len(label)-1] == '-':
			return i + len(label) - 1, "a part of the name ends with -"
		}
		if !more {
			return 0, ""
		}
	}
}

// IsNameCharacter says whether names may have c in their parts.
func IsNameCharacter(c rune) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Canonical is a name as rules and tables have it.
func Canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
