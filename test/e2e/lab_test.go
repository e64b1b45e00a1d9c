package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/vnet/ways"
	"banger/test/world"
)

// labVariable names the shared installation for the process inside the lab.
const labVariable = "BANGER_E2E_LAB"

// TestLab tries every way out of a real guest, in every mode. It does so in a
// network of its own, where this process is root and nothing leads anywhere: what
// comes out of a guest can be seen there, whatever it is.
func TestLab(t *testing.T) {
	t.Parallel()
	if os.Getenv(labVariable) != "" {
		l := newNetworkLab(t)
		l.try(t)
		l.trust(t)
		return
	}
	for _, tool := range []string{"ip", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("cannot make a lab without %s", tool)
		}
	}
	inside := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLab$", "-test.v", "-test.count=1")
	inside.Env = append(os.Environ(), labVariable+"="+shared.Home)
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := inside.CombinedOutput()
	if strings.Contains(fmt.Sprint(err), "operation not permitted") {
		t.Skip("this host does not let us make namespaces")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// labShared is the shared installation as the lab sees it: its daemon is outside,
// and is left alone.
func labShared() (home, error) {
	bin, err := filepath.Abs("../../bin/banger")
	return home{&world.World{Home: os.Getenv(labVariable), Bin: bin}}, err
}

// networkLab is the world around a guest. All addresses that are no interface's
// lead to this host too, and what is sent to them is seen.
type networkLab struct {
	home
	resolver *resolver
	sniffer  *sniffer
	probe    *probe
	kept     bool // the last way ended in the guest's kernel
}

// mode is what the guest may reach.
type mode struct {
	letter string
	flags  []string
}

var modes = []mode{
	{"0", []string{"--no-nat", "--no-allow"}},
	{"a", append([]string{"--no-nat", "--no-allow"}, allowFlags(ways.Rules)...)},
	{"n", []string{"--nat", "--no-allow"}},
}

func allowFlags(rules []string) (flags []string) {
	for _, r := range rules {
		flags = append(flags, "--allow", r)
	}
	return flags
}

func newNetworkLab(t *testing.T) *networkLab {
	t.Helper()
	command(t, "ip", "link", "set", "lo", "up")
	for _, own := range ways.Own {
		command(t, "ip", "address", "add", own+"/32", "dev", "lo")
	}
	command(t, "ip", "route", "add", "local", "default", "dev", "lo") // the internet, the LAN, the metadata
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	l := &networkLab{home: borrowedWorld(t, "lab"), resolver: startResolver(t), sniffer: startSniffer(t)}
	for _, service := range []string{"0.0.0.0:80", "127.0.0.1:8080", "127.0.0.1:22"} {
		listenAndClose(t, service)
	}
	config := filepath.Join(l.Home, ".config/banger/config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("default_dns = \""+resolverAddress+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.start(t, "lab") // the first, whose address the list knows
	l.start(t, "other")
	l.must(t, "exec", "-d", "other", "--", "python3", "-m", "http.server", "80")
	l.probe = l.startProbe(t)
	return l
}

// listenAndClose is a service that nobody should reach but by a rule.
func listenAndClose(t *testing.T, address string) {
	t.Helper()
	s, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// try goes through the list. What is remembered of a name counts for a minute, so
// that ways which ask for one come last.
func (l *networkLab) try(t *testing.T) {
	asks := func(w ways.Way) int {
		for _, s := range append(slices.Clone(w.First), w.Then...) {
			if s.Do == ways.AskUDP || s.Do == ways.AskTCP {
				return 1
			}
		}
		return 0
	}
	all := slices.Clone(ways.All)
	slices.SortStableFunc(all, func(a, b ways.Way) int { return asks(a) - asks(b) })
	var report strings.Builder
	for _, m := range modes {
		l.must(t, append([]string{"vm", "set", "lab"}, m.flags...)...)
		for _, way := range all {
			if slices.ContainsFunc(way.First, func(s ways.Step) bool { return s.Do == ways.Later }) {
				fmt.Fprintf(&report, "%-40s %-2s %s\n", way.Name, m.letter, "not here: it takes an hour")
				continue
			}
			left, counted := l.tryWay(t, m, way)
			verdict := "refused"
			if l.kept && len(left) == 0 {
				fmt.Fprintf(&report, "%-40s %-2s %s\n", way.Name, m.letter, "kept in by the guest's kernel")
				continue
			}
			if len(left) > 0 {
				verdict = "out: " + strings.Join(left, ", ")
			}
			fmt.Fprintf(&report, "%-40s %-2s %-34s %d\n", way.Name, m.letter, verdict, counted)
			want := strings.Contains(way.Passes, m.letter)
			if want != (len(left) > 0) || want && left[0] != way.Out || !want && counted == 0 {
				t.Errorf("%s in mode %s: %s, counted %d", way.Name, m.letter, verdict, counted)
			}
		}
	}
	t.Logf("way, mode, verdict, counter\n%s", report.String())
	if got := l.must(t, "exec", "lab", "--", "/root/probe", "port"); got != "1 refused" {
		t.Errorf("the agent's own channel: %s", got)
	}
	if r := l.Banger("exec", "lab", "--", "curl", "-sS", "-m", "5", "http://"+l.show(t, "other").GuestIP+"/"); r.Status == 0 {
		t.Error("the other VM can be reached")
	}
	l.must(t, "exec", "other", "--", "curl", "-sS", "-o", "/dev/null", "http://"+l.show(t, "other").GuestIP+"/") // and is there
}

// tryWay takes the steps of a way and says what left, and how much was counted
// instead.
func (l *networkLab) tryWay(t *testing.T, m mode, way ways.Way) (left []string, counted uint64) {
	t.Helper()
	l.do(t, m, way.First)
	l.sniffer.settle(t)
	seen, asked, before := l.sniffer.count(), l.resolver.count(), l.counters(t, way.Counter)
	l.kept = false
	l.do(t, m, way.Then)
	eventually(t, way.Name+" left or was counted", func() bool {
		counted = l.counters(t, way.Counter) - before
		l.sniffer.settle(t)
		left = append(l.sniffer.since(seen), l.resolver.since(asked)...)
		return len(left) > 0 || counted > 0 || l.kept
	})
	return left, counted
}

func (l *networkLab) do(t *testing.T, m mode, steps []ways.Step) {
	t.Helper()
	for _, s := range steps {
		switch s.Do {
		case ways.Mean:
			l.resolver.mean(s.To)
		case ways.OpenAll:
			l.must(t, "vm", "set", "lab", "--nat")
		case ways.CloseAgain:
			l.must(t, append([]string{"vm", "set", "lab"}, m.flags...)...)
		default:
			l.kept = l.probe.take(t, s) || l.kept
		}
	}
}

// counters is the sum of counters by their names.
func (l *networkLab) counters(t *testing.T, names []string) (sum uint64) {
	t.Helper()
	var n struct{ Counters map[string]uint64 }
	if err := json.Unmarshal([]byte(l.must(t, "vm", "net", "lab", "--json")), &n); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		v, ok := n.Counters[name]
		if !ok {
			t.Fatalf("there is no counter %s", name)
		}
		sum += v
	}
	return sum
}

// settleTime is more than a packet takes from a guest that has been told that its
// step is done.
const settleTime = 20 * time.Millisecond
