package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"banger/internal/vnet/ways"
)

// probe is the program in the guest that takes the steps.
type probe struct {
	in  io.Writer
	out *bufio.Scanner
}

func (l *networkLab) startProbe(t *testing.T) *probe {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "banger/test/e2e/probe")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the probe: %v\n%s", err, out)
	}
	l.must(t, "cp", bin, "lab:/root/probe")
	cmd := l.Command("exec", "-i", "lab", "--", "/root/probe")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return &probe{in, bufio.NewScanner(out)}
}

// take says whether the guest's own kernel kept the step in.
func (p *probe) take(t *testing.T, s ways.Step) (kept bool) {
	t.Helper()
	line, err := json.Marshal([]ways.Step{s})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", line); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatal("the probe has ended")
	}
	return p.out.Text() == "kept"
}

// resolverAddress is that of the world's resolver.
const resolverAddress = "198.51.100.1"

// resolver knows the names of the list, and remembers what it was asked.
type resolver struct {
	mu    sync.Mutex
	means string // rebind.com
	asked []string
}

func startResolver(t *testing.T) *resolver {
	t.Helper()
	r := &resolver{means: "192.0.2.1"}
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: resolverAddress + ":53", Net: network, Handler: r, NotifyStartedFunc: func() { close(started) }}
		failed := make(chan error, 1)
		go func() { failed <- s.ListenAndServe() }()
		select {
		case <-started:
		case err := <-failed:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return r
}

// ServeDNS answers one question.
func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name := q.Question[0].Name
	r.mu.Lock()
	r.asked = append(r.asked, "dns "+name)
	means, ttl := ways.Names[name[:len(name)-1]], 1
	if name == "rebind.com." {
		means, ttl = r.means, 0
	}
	r.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	if means == "" {
		reply.Rcode = dns.RcodeNameError
	} else if q.Question[0].Qtype == dns.TypeA {
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN A %s", name, ttl, means))
		if err == nil {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	_ = w.WriteMsg(reply)
}

func (r *resolver) mean(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.means = address
}

func (r *resolver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func (r *resolver) since(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked[n:])
}

// sniffer sees every packet that begins something, to whatever address.
type sniffer struct {
	mu   sync.Mutex
	seen []string
}

func startSniffer(t *testing.T) *sniffer {
	t.Helper()
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	s := &sniffer{}
	ended := make(chan struct{})
	wait := unix.Timeval{Usec: 100_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && ll.Pkttype == unix.PACKET_OUTGOING && n > 14 {
				s.note(buf[14:n])
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		unix.Close(fd)
	})
	return s
}

// note writes down what begins something.
func (s *sniffer) note(p []byte) {
	what := beginning(p)
	if what == "" || what == "udp "+resolverAddress+":53" || what == "tcp "+resolverAddress+":53" {
		return // of questions the resolver itself tells
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, what)
}

// beginning says what an IP packet begins, "" for one that goes on with something
// or answers.
func beginning(p []byte) string {
	if len(p) < 40 && (len(p) < 28 || p[9] == 6) || p[0]>>4 != 4 {
		if len(p) > 0 && p[0]>>4 == 6 {
			return fmt.Sprintf("IPv6 %x", p[:min(len(p), 40)])
		}
		return ""
	}
	to, payload := netip.AddrFrom4([4]byte(p[16:20])), p[int(p[0]&15)*4:]
	source := binary.BigEndian.Uint16(payload)
	port := binary.BigEndian.Uint16(payload[2:])
	switch {
	case p[9] == 6 && payload[13]&0x12 == 0x02:
		return fmt.Sprintf("tcp %v:%d", to, port)
	case p[9] == 17 && source != 53:
		return fmt.Sprintf("udp %v:%d", to, port)
	case p[9] == 1 && payload[0] == 8:
		return fmt.Sprintf("icmp %v", to)
	}
	return ""
}

func (s *sniffer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

func (s *sniffer) since(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.Clone(s.seen[n:]))
}

// settle waits until nothing more comes.
func (s *sniffer) settle(t *testing.T) {
	t.Helper()
	for last := -1; last != s.count(); time.Sleep(settleTime) {
		last = s.count()
	}
}
