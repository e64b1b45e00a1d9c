// Command probe tries, from inside a guest, to reach what it is told: a line of
// steps in JSON on its input, a line when they are done on its output. What became
// of them is not for it to say: whoever is outside sees what came out.
//
// It needs nothing of the guest and knows nothing of banger.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"banger/internal/vnet/ways"
)

const (
	gateway = "10.77.0.1:53"
	limit   = 5 * time.Second
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "port" {
		fmt.Println(openAgentPort())
		return
	}
	card, err := openCard()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var steps []ways.Step
		if err := json.Unmarshal(lines.Bytes(), &steps); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		word := "done"
		for _, s := range steps {
			if take(card, s) == unix.EINVAL {
				word = "kept" // by the guest's own kernel
			}
		}
		fmt.Println(word)
	}
}

// take does one step. That it fails is what is hoped for; what only a kernel of
// one's own would send is an error.
func take(card int, s ways.Step) error {
	switch s.Do {
	case ways.TCP:
		if c, err := net.DialTimeout("tcp", s.To, limit); err == nil {
			c.Close()
		}
	case ways.UDP:
		if c, err := net.Dial("udp", s.To); err == nil {
			_, _ = c.Write([]byte("x"))
			c.Close()
		}
	case ways.AskUDP, ways.AskTCP:
		c := dns.Client{Net: s.Do[len("ask "):], Timeout: limit}
		_, _, _ = c.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(s.To), s.Type), gateway)
	case ways.Frame:
		_, err := unix.Write(card, s.Frame)
		return err
	}
	return nil
}

// openCard opens the guest's network card for frames of any kind.
func openCard() (int, error) {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: card.Index})
}

// openAgentPort says what comes of opening the agent's port.
func openAgentPort() string {
	ports, _ := filepath.Glob("/dev/vport*")
	for _, port := range ports {
		f, err := os.OpenFile(port, os.O_RDWR, 0)
		if err == nil {
			f.Close()
			return "opened " + port
		}
	}
	return fmt.Sprintf("%d refused", len(ports))
}
