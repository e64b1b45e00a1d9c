package e2e

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// talker is a program that is a server at the given addresses, or a client.
const talker = `package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

func main() {
	if os.Args[1] == "ask" {
		c, err := net.DialTimeout("tcp", os.Args[2], 30*time.Second)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		var b [5]byte
		_, err = io.ReadFull(c, b[:])
		fmt.Println(string(b[:]), err)
		return
	}
	for _, at := range os.Args[2:] {
		l, err := net.Listen("tcp4", at)
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					panic(err)
				}
				fmt.Fprint(c, "served at ", at)
				c.Close()
			}
		}()
	}
	select {}
}
`

func TestAnImageOfOneProgramHasANetwork(t *testing.T) {
	t.Parallel()
	w, s := borrowedWorld(t, "tinynet"), serve(t)
	w.must(t, "image", "pull", serveImage(t, staticProgram(t, talker)), "--name", "talker")
	w.start(t, "small", "--cold", "--image", "talker", "--nat", "--allow", s.rule())
	// In: at every address, and at the guest's own alone.
	w.must(t, "exec", "-d", "small", "--", "/hello", "serve", "0.0.0.0:8000", "127.0.0.1:8001")
	for _, at := range []string{"0.0.0.0:8000", "127.0.0.1:8001"} {
		u, err := url.Parse(w.awaitURL(t, "small", at))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.DialTimeout("tcp", u.Host, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		c.Close()
		if string(got) != "served at "+at || err != nil {
			t.Errorf("%s: %q, %v", at, got, err)
		}
	}
	// Out, by name: there is no resolv.conf but what the agent made.
	if got := w.must(t, "exec", "small", "--", "/hello", "ask", fmt.Sprint("host.vm:", s.port)); got != "hello <nil>" {
		t.Errorf("it heard %q", got)
	}
	w.must(t, "vm", "set", "small", "--no-nat", "--no-allow")
	r := w.Banger("exec", "small", "--", "/hello", "ask", fmt.Sprint("host.vm:", s.port))
	if r.Status != 1 || !strings.Contains(r.Stderr, "network: refused host.vm") {
		t.Errorf("without a network: status %d, %s%s", r.Status, r.Stdout, r.Stderr)
	}
}
