package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"banger/internal/bench"
	"banger/internal/paths"
)

// client measures in the guest, with what every image of ours has. It does what it
// is told over its first connection, a line each, and answers with how many seconds
// that took: a MiB, a connection, the median HTTP request. Sizes are such that two
// networks see the same host when they are measured in turn. The host's name is asked
// for once: QEMU's network has none for it.
const client = `import http.client, socket, sys, time
host, raw, web = socket.gethostbyname(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
MiB = 1 << 20
def connect(kind):
    s = socket.create_connection((host, raw), 60)
    s.sendall(kind)
    return s
def up(n=24):
    s, block, began = connect(b"U"), bytes(MiB), time.monotonic()
    for _ in range(n): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)
    return (time.monotonic() - began) / n
def down(n=24):
    s, block, left, began = connect(b"D"), bytearray(MiB), n * MiB, time.monotonic()
    while left > 0:
        got = s.recv_into(block)
        if not got: sys.exit("it ended early")
        left -= got
    return (time.monotonic() - began) / n
def connects(n=20):
    began = time.monotonic()
    for _ in range(n): connect(b"C").close()
    return (time.monotonic() - began) / n
web = http.client.HTTPConnection(host, web)
def requests(n=21):
    all = []
    for _ in range(n):
        began = time.monotonic()
        web.request("GET", "/")
        web.getresponse().read()
        all.append(time.monotonic() - began)
    return sorted(all)[n // 2]
orders = connect(b"M")
orders.settimeout(None)
for line in orders.makefile():
    orders.sendall(b"%.9f\n" % globals()[line.strip()]())
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
	clients  chan *tester
	closers  []io.Closer
}

func startHost() (*host, error) {
	h := &host{clients: make(chan *tester)}
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

// answer does what the first byte asks for: U takes, D gives, C nothing, K keeps, and
// M measures.
func (h *host) answer(c net.Conn) {
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err == nil && kind[0] == 'M' {
		h.clients <- &tester{c, bufio.NewReader(c)}
		return
	}
	defer c.Close()
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

// tester is a guest's client, which measures what it is told.
type tester struct {
	net.Conn
	answers *bufio.Reader
}

// take has what measured.
func (t *tester) take(what string) (time.Duration, error) {
	if _, err := fmt.Fprintln(t, what); err != nil {
		return 0, err
	}
	line, err := t.answers.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the guest measured no %s: %w", what, err)
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	return time.Duration(seconds * float64(time.Second)), err
}

// startClient runs the client with run until its tester is closed; ended gives what
// came of it then.
func (h *host) startClient(run func(argv ...string) error, name string) (t *tester, ended chan error, err error) {
	ended = make(chan error, 1)
	go func() { ended <- run("/usr/bin/python3", "-c", client, name, strconv.Itoa(h.raw), strconv.Itoa(h.web)) }()
	select {
	case t = <-h.clients:
		return t, ended, nil
	case err = <-ended:
		return nil, nil, errors.Join(errors.New("the guest's client ended"), err)
	}
}

// network measures a guest's network beside the same guest in QEMU's own.
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
	ours, ended, err := h.startClient(func(argv ...string) error {
		return b.command(append([]string{"exec", "bench", "--"}, argv...)...)()
	}, "host.vm")
	if err != nil {
		return err
	}
	theirs, theirsEnded, err := h.startClient(func(argv ...string) error {
		_, err := floor.Output(argv...)
		return err
	}, "10.0.2.2")
	if err == nil {
		err = errors.Join(b.compare(ours, theirs), theirs.Close(), <-theirsEnded)
	}
	if err := errors.Join(err, ours.Close(), <-ended); err != nil {
		return err
	}
	return b.holdMany(h, vm)
}

// compare shows times, so that less is better in each row. What is short is measured
// often: its ratio is what a busy host moves most.
func (b *benchmark) compare(ours, theirs *tester) error {
	for _, f := range []struct {
		row, what string
		n, times  int // how often; of how many it is shown
	}{
		{"a GiB from the guest (floor: QEMU's own network)", "up", 5, 1024},
		{"a GiB to the guest", "down", 5, 1024},
		{"1,000 connections of the guest's, one by one", "connects", 2 * quick, 1000},
		{"an HTTP round trip", "requests", 2 * quick, 1},
	} {
		var all [2][]time.Duration
		for range b.often(f.n) {
			for i, t := range []*tester{ours, theirs} {
				d, err := t.take(f.what)
				if err != nil {
					return err
				}
				all[i] = append(all[i], d*time.Duration(f.times))
			}
		}
		r := medians(f.row, 0, all[0], all[1])
		r.times = 1.11 // 0.9 of its speed
		r.print()
	}
	return nil
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
