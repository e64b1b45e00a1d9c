package vnet

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

func TestHostAddressesAreThoseOfItsInterfaces(t *testing.T) {
	own := HostAddresses()
	if got := own(); !slices.Contains(got, netip.MustParseAddr("127.0.0.1")) || !slices.Equal(got, own()) {
		t.Error(got)
	}
}

// listenBoth takes a number that is free for UDP and for TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		streams, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, streams
		}
		_ = packets.Close()
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// listenDNS serves a zone on a loopback address, by UDP cut short and by TCP whole.
func listenDNS(t *testing.T, z *zone) string {
	packets, streams := listenBoth(t)
	answer := func(w dns.ResponseWriter, q *dns.Msg) {
		reply, err := z.Exchange(context.Background(), q)
		if err != nil {
			return
		}
		if w.RemoteAddr().Network() == "udp" && len(reply.Answer) > 1 {
			reply.Truncated, reply.Answer = true, nil
		}
		_ = w.WriteMsg(reply)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: dns.HandlerFunc(answer)}, {Listener: streams, Handler: dns.HandlerFunc(answer)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return packets.LocalAddr().String()
}

func TestUpstreamsAreAskedInTurn(t *testing.T) {
	server := listenDNS(t, &zone{answers: testZone})
	nobody := listen(t, func(c *net.TCPConn) { c.Close() }) // no UDP there
	for _, c := range []struct {
		servers Upstreams
		name    string
		want    string
	}{
		{Upstreams{server}, "a.example.org.", "NOERROR 192.0.2.9 CNAME CNAME 192.0.2.66"}, // all of it: what belongs is not for it to say
		{Upstreams{server}, "example.com.", "NOERROR 192.0.2.1 192.0.2.2"},                // cut, and asked again by TCP
		{Upstreams{nobody, server}, "nobody.com.", "NXDOMAIN"},
	} {
		reply, err := c.servers.Exchange(t.Context(), new(dns.Msg).SetQuestion(c.name, dns.TypeA))
		if err != nil || said(reply) != c.want {
			t.Errorf("%s: %v, %v", c.name, reply, err)
		}
	}
	for _, servers := range []Upstreams{nil, {nobody}} {
		if _, err := servers.Exchange(t.Context(), new(dns.Msg).SetQuestion("a.com.", dns.TypeA)); err == nil {
			t.Error("an answer of nobody")
		}
	}
}

func TestUpstreamsOfTheHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# mine\nnameserver 192.0.2.53\nsearch example.com\nnameserver 2001:db8::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadUpstreams(path)
	if err != nil || !slices.Equal(got, Upstreams{"192.0.2.53:53", "[2001:db8::53]:53"}) {
		t.Error(got, err)
	}
	if _, err := ReadUpstreams(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestPingSocketPings(t *testing.T) {
	p, err := NewPingSocket()
	if err != nil {
		t.Skip(err)
	}
	data := bytes.Repeat([]byte("data"), 100)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if got, err := p.Ping(ctx, netip.MustParseAddr("127.0.0.1"), data); err != nil || !bytes.Equal(got, data) {
		t.Error(got, err)
	}
	ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ended.Done()
	if _, err := p.Ping(ended, netip.MustParseAddr("127.0.0.1"), data); err == nil {
		t.Error("a ping after its time")
	}
}
