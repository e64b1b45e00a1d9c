package reach

// Counters says how much was dropped or refused, by technique. What is dropped
// frame by frame is counted here alone; refused connections and names are in the
// records too.
type Counters struct {
	FramesIn      uint64 `json:"frames_in"`
	FramesOut     uint64 `json:"frames_out"`
	IPv6          uint64 `json:"ipv6"`
	Spoofed       uint64 `json:"spoofed"`   // another sender's Ethernet or IP address
	Broadcast     uint64 `json:"broadcast"` // and multicast
	Stray         uint64 `json:"stray"`     // to a station that is not the gateway
	Martian       uint64 `json:"martian"`   // to 0/8, 127/8, 240/4 or the guest itself
	Malformed     uint64 `json:"malformed"`
	OtherProtocol uint64 `json:"other_protocol"` // neither ARP nor IPv4; neither TCP, UDP nor ICMP
	QueueFull     uint64 `json:"queue_full"`     // frames to the guest that it was too slow for
	RefusedTCP    uint64 `json:"refused_tcp"`
	RefusedUDP    uint64 `json:"refused_udp"`
	RefusedICMP   uint64 `json:"refused_icmp"`
	OverLimit     uint64 `json:"over_limit"` // beyond the connections a VM may have
	HalfOpen      uint64 `json:"half_open"`  // beyond those that may be under way
	Ended         uint64 `json:"ended"`      // by a change of the policy
	DNSQueries    uint64 `json:"dns_queries"`
	DNSRefused    uint64 `json:"dns_refused"`
	DNSFiltered   uint64 `json:"dns_filtered"` // answers in refused ranges that were taken out
	DNSDropped    uint64 `json:"dns_dropped"`  // beyond the rate
	DNSLongNames  uint64 `json:"dns_long_names"`
	DNSManyNames  uint64 `json:"dns_many_names"`
}
