package vnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"banger/internal/vnet/reach"
)

// Resolver asks the world beyond for what the policy allows. It is never asked
// for anything else, and the question it gets is made afresh: only the name, in
// lower case, and the type are the guest's.
type Resolver interface {
	Exchange(ctx context.Context, question *dns.Msg) (*dns.Msg, error)
}

const (
	dnsTimeout    = 10 * time.Second
	dnsUDPSize    = 1232 // of an answer to who says it takes that much
	dnsMaxAnswers = 100
	dnsTCPConns   = 16
	dnsTCPQueries = 64 // of one connection
	dnsHostTTL    = 60
)

// nameServer answers the guest's questions at the gateway.
type nameServer struct {
	gateway  netip.Addr
	ground   reach.Ground
	policy   func() *reach.Policy
	resolver Resolver
	names    *names
	records  *records
	counters *counters
	rate     *bucket
	tunnels  *tunnels
	asking   chan struct{} // a place for each question under way
	ctx      context.Context
}

// ServeDNS is the whole way of one question. A question beyond the rate gets no
// answer, which costs least.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	s.counters.dnsQueries.Add(1)
	if !s.rate.take() {
		s.counters.dnsDropped.Add(1)
		return
	}
	reply := s.answer(question)
	if opt := question.IsEdns0(); opt != nil {
		reply.SetEdns0(dnsUDPSize, false)
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
		reply.Truncate(udpSize(question))
	}
	// The guest is gone if this fails, and asks again if it is not.
	_ = w.WriteMsg(reply)
}

func udpSize(question *dns.Msg) int {
	if opt := question.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), dnsUDPSize)
	}
	return dns.MinMsgSize
}

func (s *nameServer) answer(question *dns.Msg) *dns.Msg {
	if len(question.Question) != 1 {
		return status(question, dns.RcodeFormatError)
	}
	q := question.Question[0]
	name := reach.Canonical(q.Name)
	s.countTunnel(name)
	switch {
	case q.Qclass != dns.ClassINET || !plain(name):
		return s.refuse(question)
	case name == reach.HostName:
		return s.answerHost(question, q)
	case isReverse(name):
		if !s.allowsReverse(name) {
			return s.refuse(question)
		}
	case !s.policy().AllowsName(name):
		s.records.note("dns", reach.Destination{}, reach.Verdict{Name: name, Rule: openerOf(name), Why: reach.WhyNotAllowed})
		return s.refuse(question)
	}
	switch q.Qtype {
	case dns.TypeA, dns.TypeCNAME, dns.TypeMX, dns.TypeTXT, dns.TypeSRV, dns.TypeNS, dns.TypeSOA, dns.TypePTR,
		dns.TypeCAA, dns.TypeNAPTR, dns.TypeDS, dns.TypeDNSKEY, dns.TypeTLSA, dns.TypeSSHFP:
		return s.ask(question, q, name)
	case dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB: // addresses that no connection could be judged by
		return status(question, dns.RcodeSuccess)
	}
	return s.refuse(question)
}

func status(question *dns.Msg, code int) *dns.Msg {
	reply := new(dns.Msg).SetRcode(question, code)
	reply.RecursionAvailable = true
	return reply
}

func (s *nameServer) refuse(question *dns.Msg) *dns.Msg {
	s.counters.dnsRefused.Add(1)
	return status(question, dns.RcodeRefused)
}

// openerOf is the rule that would allow a name, "" where none can.
func openerOf(name string) string {
	if reach.CheckRule(name) != nil {
		return ""
	}
	return name
}

// plain says whether a name is made of the characters names are made of. Others
// arrive escaped, and an escaped dot would look like one.
func plain(name string) bool {
	return strings.IndexFunc(name, func(c rune) bool { return c != '.' && !reach.IsNameCharacter(c) }) < 0
}

func (s *nameServer) answerHost(question *dns.Msg, q dns.Question) *dns.Msg {
	if !s.policy().AllowsHost() {
		s.records.note("dns", reach.Destination{}, reach.Verdict{Name: reach.HostName, Rule: "", Why: "the host's loopback address is not allowed"})
		return s.refuse(question)
	}
	reply := status(question, dns.RcodeSuccess)
	if q.Qtype == dns.TypeA {
		reply.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: dnsHostTTL},
			A:   s.gateway.AsSlice(),
		}}
	}
	return reply
}

func isReverse(name string) bool {
	return name == "in-addr.arpa" || strings.HasSuffix(name, ".in-addr.arpa") || name == "ip6.arpa" || strings.HasSuffix(name, ".ip6.arpa")
}

// allowsReverse lets the guest ask what an address is called only where it may
// go there: the host's resolvers know names of private addresses.
func (s *nameServer) allowsReverse(name string) bool {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 4 {
		return false
	}
	addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return err == nil && s.policy().Check(s.ground, reach.Destination{Addr: addr}).Allowed
}

// ask goes upstream and gives on what belongs to the question and may be known.
func (s *nameServer) ask(question *dns.Msg, q dns.Question, name string) *dns.Msg {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	default:
		s.counters.dnsDropped.Add(1)
		return status(question, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(s.ctx, dnsTimeout)
	defer cancel()
	upstream := new(dns.Msg).SetQuestion(dns.Fqdn(name), q.Qtype)
	upstream.SetEdns0(dnsUDPSize, false)
	got, err := s.resolver.Exchange(ctx, upstream)
	switch {
	case err != nil || got == nil:
		return status(question, dns.RcodeServerFailure)
	case got.Rcode == dns.RcodeNameError:
		return status(question, dns.RcodeNameError)
	case got.Rcode != dns.RcodeSuccess:
		return status(question, dns.RcodeServerFailure)
	}
	return s.giveOn(question, q, name, got)
}

func (s *nameServer) giveOn(question *dns.Msg, q dns.Question, name string, got *dns.Msg) *dns.Msg {
	policy := s.policy() // again: it may have changed while we asked
	if !isReverse(name) && !policy.AllowsName(name) {
		return s.refuse(question)
	}
	reply := status(question, dns.RcodeSuccess)
	var hidden []netip.Addr
	for _, rr := range ofQuestion(got.Answer, q.Qtype, dns.Fqdn(name)) {
		rr.Header().Ttl = min(rr.Header().Ttl, uint32(maxTTL/time.Second))
		if a, ok := rr.(*dns.A); ok {
			addr, ok := netip.AddrFromSlice(a.A.To4())
			if !ok || !policy.AllowsAnswer(s.ground, addr) {
				hidden = append(hidden, addr)
				continue
			}
			s.names.remember(addr, name, time.Duration(a.Hdr.Ttl)*time.Second)
		}
		if reach.Canonical(rr.Header().Name) == name {
			rr.Header().Name = q.Name // in the guest's spelling
		}
		reply.Answer = append(reply.Answer, rr)
	}
	if len(hidden) == 0 {
		return reply
	}
	s.counters.dnsFiltered.Add(uint64(len(hidden)))
	if hasAddress(reply.Answer) {
		return reply
	}
	v := policy.Check(s.ground, reach.Destination{Addr: hidden[0], Names: []string{name}})
	v.Allowed = false
	s.records.note("dns", reach.Destination{Addr: hidden[0]}, v)
	return s.refuse(question)
}

func hasAddress(all []dns.RR) bool {
	for _, rr := range all {
		if rr.Header().Rrtype == dns.TypeA {
			return true
		}
	}
	return false
}

// ofQuestion gives the records that answer: those of the type that belong to the
// name or to what it is an alias of, and the aliases. Anything else in an answer
// was not asked for.
func ofQuestion(all []dns.RR, qtype uint16, name string) []dns.RR {
	if len(all) > dnsMaxAnswers {
		all = all[:dnsMaxAnswers]
	}
	belongs := map[string]bool{reach.Canonical(name): true}
	for grown := true; grown; {
		grown = false
		for _, rr := range all {
			c, ok := rr.(*dns.CNAME)
			if ok && belongs[reach.Canonical(c.Hdr.Name)] && !belongs[reach.Canonical(c.Target)] {
				belongs[reach.Canonical(c.Target)], grown = true, true
			}
		}
	}
	var kept []dns.RR
	for _, rr := range all {
		h := rr.Header()
		if belongs[reach.Canonical(h.Name)] && h.Class == dns.ClassINET && (h.Rrtype == qtype || h.Rrtype == dns.TypeCNAME) {
			kept = append(kept, dns.Copy(rr))
		}
	}
	return kept
}
