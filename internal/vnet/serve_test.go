package vnet

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// askMuch sends as many questions as a connection may ask, whose answers are more than
// anybody buffers, and returns when no more of them is taken.
func (l *lab) askMuch(t *testing.T) {
	t.Helper()
	window := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 8 << 10, Max: 8 << 10}
	l.must(l.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &window))
	much := make([]string, 100)
	for i := range much {
		much[i] = `much.com. 60 IN TXT "` + strings.Repeat("x", 250) + `" "` + strings.Repeat("y", 250) + `"`
	}
	l.zone.answers = map[string][]string{"much.com. TXT": much}
	c := &dns.Conn{Conn: l.mustDial("10.77.0.1:53")}
	for range dnsTCPQueries {
		if err := c.WriteMsg(new(dns.Msg).SetQuestion("much.com.", dns.TypeTXT)); err != nil {
			t.Fatal(err)
		}
	}
	asked, same := uint64(0), 0
	eventually(t, "answers wait for the guest", func() bool {
		now := l.network.counters.dnsQueries.Load()
		if same++; now != asked {
			asked, same = now, 0
		}
		return asked > 0 && same > 100
	})
}

func TestCloseWaitsForNobodyToReadAnswers(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "much.com"))
	l.askMuch(t)
	if asked := l.network.counters.dnsQueries.Load(); asked == dnsTCPQueries {
		t.Fatal("all answers were taken")
	}
	closed := make(chan error, 1)
	go func() { closed <- l.network.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(dnsTimeout / 2):
		t.Error("Close waits for the guest")
	}
}

func TestAnAnswerThatNobodyReadsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := &placedConn{Conn: ours, leave: func() {}}
		defer c.Close()
		if _, err := c.Write([]byte("answer")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestAConnectionWithUnreadAnswersIsGivenUp(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "much.com"), func(c *Config) { c.Limits.Linger = 300 * time.Millisecond })
	l.askMuch(t)
	given := l.network.stack.Stats().TCP.EstablishedTimedout
	eventually(t, "the connection is given up", func() bool { return given.Value() == 1 })
}
