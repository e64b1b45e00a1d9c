package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// flooder sends what it can for as long as the figure may take: connections that
// nobody waits for, datagrams, and questions to the gateway.
const flooder = `import os, socket, sys, time
host, port = socket.gethostbyname(sys.argv[1]), int(sys.argv[2])
with open("/etc/resolv.conf") as f: gateway = [l.split()[1] for l in f if l.startswith("nameserver")][0]
def connections():
    while True:
        some = []
        for _ in range(200):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((host, port))
            some.append(s)
        for s in some: s.close()
def datagrams(to, data):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        try: s.sendto(data, to)
        except OSError: pass
question = b"\0\1\1\0\0\1\0\0\0\0\0\0\5flood\7invalid\0\0\1\0\1"
for f in (connections, lambda: datagrams((host, port), bytes(1200)), lambda: datagrams((gateway, 53), question)):
    if os.fork() == 0: f()
time.sleep(180)
os.killpg(0, 9)
`

// flood measures an exec beside another VM that floods its network. The floor is the
// same exec before and after; what the flood costs is above what a VM costs that is busy.
func (b *benchmark) flood() (err error) {
	const name = "bench-flood"
	h, err := startHost()
	if err != nil {
		return err
	}
	defer h.close()
	if _, err := b.up(); err != nil {
		return err
	}
	to := fmt.Sprint("host.vm:", h.raw)
	if err := b.command("vm", "create", "--name", name, "--memory", smallMiB, "--allow", to)(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.command("rm", "-f", name)()) }()
	exec := b.command("exec", "bench", "--", "true")
	before, err := timed(b.often(quick/2), exec)
	if err != nil {
		return err
	}
	if err := b.command("exec", "-d", name, "--", "sh", "-c", "while [ ! -e /tmp/end ]; do :; done")(); err != nil {
		return err
	}
	busy, err := timed(b.often(quick), exec)
	if err != nil {
		return err
	}
	if err := b.command("exec", name, "--", "touch", "/tmp/end")(); err != nil {
		return err
	}
	if err := b.command("exec", "-d", name, "--", "setsid", "python3", "-c", flooder, "host.vm", strconv.Itoa(h.raw))(); err != nil {
		return err
	}
	if err := b.awaitFlood(name); err != nil {
		return err
	}
	beside, err := timed(b.often(quick), exec)
	if err != nil {
		return err
	}
	if err := b.command("vm", "kill", name)(); err != nil {
		return err
	}
	after, err := timed(b.often(quick/2), exec)
	if err != nil {
		return err
	}
	alone := append(before, after...)
	r := medians("vm exec beside a VM that floods (floor: alone)", 0, beside, alone)
	r.times = 2
	r.print()
	medians("  beside one that only computes", 0, busy, alone).print()
	return nil
}

// awaitFlood waits until there is a flood of each kind to speak of.
func (b *benchmark) awaitFlood(name string) error {
	for deadline := time.Now().Add(time.Minute); ; {
		count, err := b.asked(name)
		// Datagrams are one conversation, however many they are.
		if err != nil || count["tcp"] >= 100 && count["dns"] >= 100 && count["udp"] > 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("there is no flood: %v", count)
		}
		if err := b.pause(200 * time.Millisecond); err != nil {
			return err
		}
	}
}

// asked is how often a guest asked for anything, by protocol.
func (b *benchmark) asked(name string) (map[string]uint64, error) {
	var n struct {
		Destinations []struct {
			Protocol string `json:"protocol"`
			Allowed  uint64 `json:"allowed"`
			Refused  uint64 `json:"refused"`
		} `json:"destinations"`
	}
	if err := b.answer(&n, "vm", "net", "--json", name); err != nil {
		return nil, err
	}
	count := map[string]uint64{}
	for _, d := range n.Destinations {
		count[d.Protocol] += d.Allowed + d.Refused
	}
	return count, nil
}
