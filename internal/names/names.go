// Package names is the DNS of the host for VMs: NAME.vm, and everything below it,
// is the VM's own loopback address while it runs.
//
// It answers for vm and nothing else, and knows nothing of VMs but what it is
// told of a name.
package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"banger"
)

// Address is where a daemon answers.
const Address = "127.0.0.1:42069"

// Whose is a name whose text is the Config.Owner of who answers.
const Whose = "_banger.vm."

// Config is what to answer with. All fields are needed.
type Config struct {
	Address string
	Owner   string
	// Lookup gives the address of the VM that runs under a name.
	Lookup func(ctx context.Context, name string) (netip.Addr, bool)
	Log    *slog.Logger
}

// Bounds of what anybody on this host can have the server do.
const (
	questionsSecond = 2000
	questionsBurst  = 4000
	tcpConns        = 64
	tcpQuestions    = 128
	lookupTime      = 2 * time.Second
)

// Server answers until it is closed.
type Server struct {
	config  Config
	ctx     context.Context
	cancel  context.CancelFunc
	rate    *rate.Limiter
	servers []*dns.Server
	work    sync.WaitGroup
}

// Open begins to answer over UDP and TCP: conflict where the port is taken.
func Open(c Config) (*Server, error) {
	packets, err := net.ListenPacket("udp", c.Address)
	if err != nil {
		return nil, cannotListen(c.Address, err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		_ = packets.Close()
		return nil, cannotListen(c.Address, err)
	}
	s := &Server{config: c, rate: rate.NewLimiter(questionsSecond, questionsBurst)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	handler := dns.HandlerFunc(s.serve)
	s.servers = []*dns.Server{
		{PacketConn: packets, Handler: handler},
		{Listener: newFew(listener), Handler: handler, MaxTCPQueries: tcpQuestions},
	}
	for _, server := range s.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		s.work.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				c.Log.Error("the DNS of VMs ended", "error", err)
			}
		})
		<-started
	}
	return s, nil
}

func cannotListen(address string, err error) error {
	code := banger.Unavailable
	if errors.Is(err, unix.EADDRINUSE) {
		code = banger.Conflict
	}
	return banger.Errorf(code, "cannot answer for names of VMs at %s: %w", address, err)
}

// Close ends it and waits until nothing runs.
func (s *Server) Close() {
	s.cancel()
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
	s.work.Wait()
}

// serve answers one question. What is no question at all the library has dropped
// or refused.
func (s *Server) serve(w dns.ResponseWriter, q *dns.Msg) {
	if !s.rate.Allow() {
		return
	}
	_ = w.WriteMsg(s.answer(q)) // or whoever asked is gone
}

func (s *Server) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if len(q.Question) != 1 {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	m.SetReply(q)
	m.Authoritative = true
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	asked := q.Question[0]
	name, found := vmOf(asked.Name)
	switch {
	case !found || asked.Qclass != dns.ClassINET:
		m.Authoritative, m.Rcode = false, dns.RcodeRefused
	case name == "":
		s.apex(m, asked)
	case dns.CanonicalName(asked.Name) == Whose:
		s.whose(m, asked)
	default:
		s.vm(m, asked, name)
	}
	return m
}

// vmOf is the VM's part of a name, "" for the zone's own.
func vmOf(name string) (vm string, found bool) {
	labels := dns.SplitDomainName(dns.CanonicalName(name))
	switch n := len(labels); {
	case n == 0 || labels[n-1] != "vm":
		return "", false
	case n == 1:
		return "", true
	default:
		return labels[n-2], true
	}
}

func (s *Server) apex(m *dns.Msg, asked dns.Question) {
	if asked.Qtype == dns.TypeSOA || asked.Qtype == dns.TypeANY {
		m.Answer = []dns.RR{s.soa()}
		return
	}
	m.Ns = []dns.RR{s.soa()}
}

func (s *Server) whose(m *dns.Msg, asked dns.Question) {
	if asked.Qtype == dns.TypeTXT || asked.Qtype == dns.TypeANY {
		m.Answer = []dns.RR{&dns.TXT{Hdr: header(asked.Name, dns.TypeTXT), Txt: []string{s.config.Owner}}}
		return
	}
	m.Ns = []dns.RR{s.soa()}
}

func (s *Server) vm(m *dns.Msg, asked dns.Question, name string) {
	ctx, cancel := context.WithTimeout(s.ctx, lookupTime)
	defer cancel()
	address, ok := netip.Addr{}, false
	if banger.ValidateVMName(name) == nil {
		address, ok = s.config.Lookup(ctx, name)
	}
	switch {
	case !ok:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{s.soa()}
	case asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeANY:
		m.Answer = []dns.RR{&dns.A{Hdr: header(asked.Name, dns.TypeA), A: address.AsSlice()}}
	default:
		m.Ns = []dns.RR{s.soa()}
	}
}

// ttl is short, since VMs come and go.
const ttl = 1

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

func (s *Server) soa() dns.RR {
	return &dns.SOA{
		Hdr: header("vm.", dns.TypeSOA), Ns: "ns.vm.", Mbox: Whose,
		Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: ttl,
	}
}

// few bounds how many connections there are at once.
type few struct {
	net.Listener
	places chan struct{}
}

func newFew(l net.Listener) *few { return &few{l, make(chan struct{}, tcpConns)} }

// Accept drops those that are too many.
func (f *few) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case f.places <- struct{}{}:
			return &placed{Conn: c, leave: sync.OnceFunc(func() { <-f.places })}, nil
		default:
			_ = c.Close()
		}
	}
}

type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	p.leave()
	return p.Conn.Close()
}
