package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// port is a row of `vm ports --json`.
type port struct {
	Address, Process, URL, Reason string
	Published                     []string
}

func (w home) ports(t *testing.T, vm string) (all []port) {
	t.Helper()
	if err := json.Unmarshal([]byte(w.must(t, "vm", "ports", "--json", vm)), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// urlOf is where something that listens in a VM is on the host, "" where nothing
// does.
func (w home) urlOf(t *testing.T, vm, listens string) string {
	t.Helper()
	for _, p := range w.ports(t, vm) {
		if p.Address == listens {
			return p.URL
		}
	}
	return ""
}

// awaitURL waits for something to listen in a VM.
func (w home) awaitURL(t *testing.T, vm, listens string) (url string) {
	t.Helper()
	eventually(t, listens+" of "+vm, func() bool { url = w.urlOf(t, vm, listens); return url != "" })
	return url
}

// hostAddress is a VM's own on this host.
func (w home) hostAddress(t *testing.T, vm string) string {
	t.Helper()
	var v struct {
		Address string `json:"host_address"`
	}
	if err := json.Unmarshal([]byte(w.must(t, "vm", "show", vm)), &v); err != nil || v.Address == "" {
		t.Fatalf("%s has no address: %v", vm, err)
	}
	return v.Address
}

// web serves the directory /srv of a VM, on an address there.
func (w home) web(t *testing.T, vm, address string, port int) {
	t.Helper()
	w.must(t, "exec", "-d", vm, "--", "python3", "-m", "http.server", "--directory", "/srv", "--bind", address, fmt.Sprint(port))
}

// curl gets a page as a person would.
func curl(t *testing.T, url string, flags ...string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "curl", append([]string{"-sS", "--max-time", "120", url}, flags...)...))
}

func TestWhatListensInAGuestIsOnItsHost(t *testing.T) {
	w := shared
	w.start(t, "server", "-p", "127.0.0.57:28080:8000")
	w.must(t, "exec", "server", "--", "sh", "-c", "echo it is me > /srv/page")
	w.web(t, "server", "0.0.0.0", 8000)
	w.web(t, "server", "127.0.0.1", 8001)
	address := w.hostAddress(t, "server")
	for listens, want := range map[string]string{
		"0.0.0.0:8000": "http://" + address + ":8000", "127.0.0.1:8001": "http://" + address + ":8001",
	} {
		url := w.awaitURL(t, "server", listens)
		if url != want {
			t.Errorf("%s is at %s, not at %s", listens, url, want)
		}
		if got := curl(t, url+"/page"); got != "it is me" {
			t.Errorf("%s says %q", url, got)
		}
	}
	if got := curl(t, "http://127.0.0.57:28080/page"); got != "it is me" {
		t.Errorf("what is published says %q", got)
	}
	t.Run("by name", func(t *testing.T) { byName(t, w, "server", address) })
	t.Run("gone with the listener", func(t *testing.T) {
		w.must(t, "exec", "server", "--", "pkill", "-f", "bind 127.0.0.1 8001")
		eventually(t, "the port goes, and is listed no more", func() bool {
			c, err := net.Dial("tcp", address+":8001")
			if err == nil {
				_ = c.Close()
			}
			return err != nil && w.urlOf(t, "server", "127.0.0.1:8001") == ""
		})
		curl(t, "http://"+address+":8000/page") // and the other stays
	})
}

// byName asks the daemon's DNS, if this world's has it: another on this machine
// may.
func byName(t *testing.T, w home, vm, address string) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:42069")
	}}
	if !strings.Contains(w.must(t, "doctor"), "resolves at 127.0.0.1:42069 alone") {
		t.Skip("another program of this host has the port of the DNS")
	}
	c := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}}
	for _, host := range []string{vm + ".vm", "www." + vm + ".vm"} {
		resp, err := c.Get("http://" + host + ":8000/page")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || strings.TrimSpace(string(body)) != "it is me" {
			t.Errorf("%s says %q, %v", host, body, err)
		}
	}
	if got, err := resolver.LookupHost(t.Context(), vm+".vm"); err != nil || len(got) != 1 || got[0] != address {
		t.Errorf("it resolves to %v, %v", got, err)
	}
	if got, err := resolver.LookupHost(t.Context(), "nosuch.vm"); err == nil {
		t.Errorf("what is not there resolves to %v", got)
	}
}

// slowly is a guest's server that says a line whenever it hears one.
const slowly = `import socket
s = socket.create_server(("127.0.0.1", 9000))
while True:
    c, _ = s.accept()
    try:
        for line in c.makefile():
            c.sendall(line.upper().encode())
    except OSError:
        pass # it broke
    c.close()
`

// talk is a connection on which lines are answered.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func talkTo(t *testing.T, address string) *talk {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &talk{c, bufio.NewReader(c)}
}

func (c *talk) says(t *testing.T, line string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	if got, err := c.lines.ReadString('\n'); err != nil || got != strings.ToUpper(line)+"\n" {
		t.Fatalf("%q is answered with %q, %v", line, got, err)
	}
}

func TestPortsFollowTheirVMThroughItsLife(t *testing.T) {
	w := shared
	w.start(t, "server")
	w.must(t, "exec", "-d", "server", "--", "python3", "-c", slowly)
	w.awaitURL(t, "server", "127.0.0.1:9000")
	address := w.hostAddress(t, "server")
	conn := talkTo(t, address+":9000")
	conn.says(t, "before")

	t.Run("a daemon that is replaced is not noticed", func(t *testing.T) {
		w.must(t, "daemon", "stop")
		conn.says(t, "without")
		w.must(t, "ps")
		conn.says(t, "after")
	})
	t.Run("a fork has its own", func(t *testing.T) {
		_ = conn.Close()
		w.must(t, "fork", "server", "--name", "copy")
		t.Cleanup(func() { w.Banger("rm", "-f", "copy-1") })
		w.awaitURL(t, "copy-1", "127.0.0.1:9000")
		other := w.hostAddress(t, "copy-1")
		if other == address {
			t.Fatalf("both are at %s", address)
		}
		talkTo(t, other+":9000").says(t, "the fork")
		talkTo(t, address+":9000").says(t, "the parent")
	})
	t.Run("a suspended VM has none, and gets them back", func(t *testing.T) {
		open := talkTo(t, address+":9000")
		open.says(t, "hello")
		w.must(t, "vm", "suspend", "server")
		_ = open.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := open.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived its VM")
		}
		if _, err := net.Dial("tcp", address+":9000"); err == nil {
			t.Error("somebody answers for a suspended VM")
		}
		w.must(t, "start", "server")
		w.awaitURL(t, "server", "127.0.0.1:9000")
		talkTo(t, w.hostAddress(t, "server")+":9000").says(t, "again")
	})
}
