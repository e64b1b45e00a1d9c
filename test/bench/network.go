package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"banger/internal/bench"
	"banger/internal/paths"
)

// traffic is what a guest measures against a service of the host's.
type traffic struct {
	Up        float64 `json:"up"`   // MiB/s from the guest
	Down      float64 `json:"down"` // MiB/s to it
	Connects  float64 `json:"connects"`
	RoundTrip float64 `json:"round_trip"` // ms of an HTTP request
}

// client measures in the guest, with what every image of ours has. Sizes are such
// that each part takes a second or two. The name is asked for once: QEMU's network
// has none for the host.
const client = `import http.client, json, socket, sys, time
host, raw, web = socket.gethostbyname(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
MiB = 1 << 20
def connect(kind):
    s = socket.create_connection((host, raw), 30)
    s.sendall(kind)
    return s
def up(n=48):
    s, block, began = connect(b"U"), bytes(MiB), time.monotonic()
    for _ in range(n): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)
    return n / (time.monotonic() - began)
def down(n=48):
    s, block, left, began = connect(b"D"), bytearray(MiB), n * MiB, time.monotonic()
    while left > 0:
        got = s.recv_into(block)
        if not got: sys.exit("it ended early")
        left -= got
    return n / (time.monotonic() - began)
def connects(n=100):
    began = time.monotonic()
    for _ in range(n): connect(b"C").close()
    return n / (time.monotonic() - began)
def round_trip(n=100):
    c = http.client.HTTPConnection(host, web)
    all = []
    for _ in range(n):
        began = time.monotonic()
        c.request("GET", "/")
        c.getresponse().read()
        all.append(time.monotonic() - began)
    return 1000 * sorted(all)[n // 2]
print(json.dumps({"up": up(), "down": down(), "connects": connects(), "round_trip": round_trip()}))
`

// holder opens connections and keeps them.
const holder = `import socket, sys, time
all = []
for _ in range(int(sys.argv[3])):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
    s.sendall(b"K")
    all.append(s)
time.sleep(600)
`

// host is the services that guests are measured against.
type host struct {
	raw, web int
	held     atomic.Int64
	closers  []io.Closer
}

func startHost() (*host, error) {
	h := &host{}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	h.raw, h.web, h.closers = raw.Addr().(*net.TCPAddr).Port, web.Addr().(*net.TCPAddr).Port, []io.Closer{raw, web}
	go h.serve(raw)
	go func() {
		_ = http.Serve(web, http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "hello\n") }))
	}()
	return h, nil
}

func (h *host) close() {
	for _, c := range h.closers {
		_ = c.Close()
	}
}

func (h *host) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go h.answer(c)
	}
}

// answer does what the first byte asks for: U takes, D gives, C nothing, K keeps.
func (h *host) answer(c net.Conn) {
	defer c.Close()
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return
	}
	switch kind[0] {
	case 'D':
		block := make([]byte, 1<<20)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	case 'K':
		h.held.Add(1)
		defer h.held.Add(-1)
	}
	_, _ = io.Copy(io.Discard, c)
}

// networkRounds is how often the two are measured in turn.
const networkRounds = 3

func (b *benchmark) network() error {
	h, err := startHost()
	if err != nil {
		return err
	}
	defer h.close()
	vm, err := b.up()
	if err != nil {
		return err
	}
	floor, err := bench.OpenFloor(b.ctx, paths.VM(vm.Dir))
	if err != nil {
		return err
	}
	defer floor.Close()
	floor.UseOwnNetwork()
	if err := floor.Boot(); err != nil {
		return err
	}
	if _, err := b.output("vm", "set", "bench", "--allow", fmt.Sprint("host.vm:", h.raw), "--allow", fmt.Sprint("host.vm:", h.web)); err != nil {
		return err
	}
	defer func() { _, _ = b.output("vm", "set", "bench", "--no-allow") }()
	var ours, theirs []traffic
	for range networkRounds {
		out, err := b.output("exec", "bench", "--", "python3", "-c", client, "host.vm", strconv.Itoa(h.raw), strconv.Itoa(h.web))
		if ours, err = add(ours, out, err); err != nil {
			return err
		}
		out, err = floor.Output("/usr/bin/python3", "-c", client, "10.0.2.2", strconv.Itoa(h.raw), strconv.Itoa(h.web))
		if theirs, err = add(theirs, out, err); err != nil {
			return err
		}
	}
	reportTraffic(ours, theirs)
	return b.holdMany(h, vm)
}

func add(all []traffic, out string, err error) ([]traffic, error) {
	var t traffic
	if err == nil {
		err = json.Unmarshal([]byte(out), &t)
	}
	return append(all, t), err
}

// reportTraffic shows times, so that less is better in each row: of a GiB, of a
// thousand connections, of a round trip. The floor is QEMU's own network.
func reportTraffic(ours, theirs []traffic) {
	for _, f := range []struct {
		what string
		of   func(traffic) float64 // ms
	}{
		{"a GiB from the guest (floor: QEMU's own network)", func(t traffic) float64 { return 1000 * 1024 / t.Up }},
		{"a GiB to the guest", func(t traffic) float64 { return 1000 * 1024 / t.Down }},
		{"1,000 connections of the guest's, one by one", func(t traffic) float64 { return 1000 * 1000 / t.Connects }},
		{"an HTTP round trip", func(t traffic) float64 { return t.RoundTrip }},
	} {
		times := func(all []traffic) (out []time.Duration) {
			for _, t := range all {
				out = append(out, time.Duration(f.of(t)*float64(time.Millisecond)))
			}
			return out
		}
		r := medians(f.what, 0, times(ours), times(theirs))
		r.times = 1.11 // 0.9 of its speed
		r.print()
	}
}

const heldConnections = 1000

// holdMany measures a shim whose guest has many connections open.
func (b *benchmark) holdMany(h *host, vm running) error {
	before := memoryOf(vm.ShimPID, "status", "VmRSS:")
	args := []string{"exec", "-d", "bench", "--", "python3", "-c", holder, "host.vm", strconv.Itoa(h.raw), strconv.Itoa(heldConnections)}
	if _, err := b.output(args...); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); h.held.Load() < heldConnections; {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d connections came", h.held.Load(), heldConnections)
		}
		if err := b.pause(100 * time.Millisecond); err != nil {
			return err
		}
	}
	row{what: "memory of 1,000 open connections", n: 1, unit: mib, figure: memoryOf(vm.ShimPID, "status", "VmRSS:") - before, most: 64}.print()
	_, err := b.output("exec", "bench", "--", "sh", "-c", "kill $(pidof python3)")
	return err
}
