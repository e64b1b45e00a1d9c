package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Record is what is known of one destination: a name or, where it was given by
// no answer, an address; a port; and a protocol ("tcp", "udp", "icmp", "dns").
type Record struct {
	Protocol string     `json:"protocol"`
	Name     string     `json:"name,omitempty"`
	Addr     netip.Addr `json:"addr,omitzero"` // the latest of the name
	Port     uint16     `json:"port,omitempty"`
	Open     int        `json:"open"` // connections now
	Allowed  uint64     `json:"allowed"`
	Refused  uint64     `json:"refused"`
	Failed   uint64     `json:"failed"` // allowed, but nobody was there
	Sent     uint64     `json:"sent_bytes"`
	Received uint64     `json:"received_bytes"`
	Why      string     `json:"why,omitempty"`  // of the latest refusal
	Rule     string     `json:"rule,omitempty"` // what --allow opens it, if anything does
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`

	LastRefused time.Time `json:"-"` // by this shim
}

// Answer is a name that gave an address, and for how long a guest may still go by it.
type Answer struct {
	Name string        `json:"name"`
	Addr netip.Addr    `json:"addr"`
	Left time.Duration `json:"left"`
}

// Whom is the name, or else the address.
func (r Record) Whom() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Addr.String()
}

// Subject is whom and which port.
func (r Record) Subject() string {
	if r.Port == 0 {
		return r.Whom()
	}
	return fmt.Sprintf("%s:%d", r.Whom(), r.Port)
}

// Learn gives the rules that would allow all that was asked for, sorted. A name
// that was asked for and then connected to is there with the ports alone.
func Learn(all []Record) []string {
	connected := map[string]bool{}
	for _, r := range all {
		if r.Protocol != "dns" && r.Rule != "" {
			connected[r.Name] = true
		}
	}
	var rules []string
	for _, r := range all {
		if r.Rule != "" && (r.Protocol != "dns" || r.Rule != r.Name || !connected[r.Name]) {
			rules = append(rules, r.Rule)
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
