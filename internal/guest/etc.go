package guest

import (
	"os"
	"strings"
	"sync"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// etc is what the agent wrote under /etc, as it saw it last. A fork of a
// template has it in memory: to look whether a file is still the same takes a
// tenth of the instructions of reading it, all of which an emulated guest runs
// for the first time.
type etc struct {
	mu        sync.Mutex
	hostname  ownFile
	machineID ownFile
	hosts     ownFile
	hostsLine string      // ours in hosts
	resolv    fileVersion // of a resolv.conf that is as it should be
	gateway   [4]byte     // for a guest whose gateway is this
	resolved  bool        // systemd-resolved may run here, and /etc/resolv.conf be its
	trust     trust
}

func newEtc() *etc {
	return &etc{
		hostname: ownFile{path: "/etc/hostname"}, machineID: ownFile{path: "/etc/machine-id"}, hosts: ownFile{path: "/etc/hosts"},
	}
}

// ownFile is a small file and what is known to be in it.
type ownFile struct {
	path    string
	text    string
	version fileVersion // when text was in it; zero is never
}

// read gives the content; "" where there is no file.
func (f *ownFile) read() string {
	if now := versionOf(f.path); now == (fileVersion{}) || now != f.version {
		text, _ := os.ReadFile(f.path)
		f.text, f.version = string(text), now
	}
	return f.text
}

// overwrite gives the file another content in its place: to replace it takes a
// hundred times the instructions. What a power cut spoils is written again at
// the next start.
func (f *ownFile) overwrite(text string, mode os.FileMode) error {
	old := f.read()
	if f.version == (fileVersion{}) {
		return f.replace(text, mode)
	}
	if text == old {
		return nil
	}
	fd, err := unix.Open(f.path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f.version = fileVersion{}
	if _, err := unix.Pwrite(fd, []byte(text), 0); err != nil {
		return err
	}
	if len(old) > len(text) {
		if err := unix.Ftruncate(fd, int64(len(text))); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	f.text, f.version = text, versionIn(&st)
	return nil
}

// replace puts a new file in the place of the old one, so that nothing of a
// user's is lost half-way.
func (f *ownFile) replace(text string, mode os.FileMode) error {
	if f.read() == text && f.version != (fileVersion{}) {
		return nil
	}
	f.version = fileVersion{}
	if err := replaceFile(f.path, []byte(text), mode); err != nil {
		return err
	}
	f.text, f.version = text, versionOf(f.path)
	return nil
}

func (e *etc) setHostname(s guestwire.Setup) error {
	if s.Hostname == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return err
	}
	return e.hostname.overwrite(s.Hostname+"\n", 0o644)
}

func (e *etc) setMachineID(s guestwire.Setup) error {
	if s.MachineID == "" {
		return nil
	}
	return e.machineID.overwrite(s.MachineID+"\n", 0o444)
}

// setHosts puts this VM's line in the place of another VM's, which mostly is as
// long.
func (e *etc) setHosts(s guestwire.Setup) error {
	old, line := e.hosts.read(), hostsLine(s)
	before, after, found := strings.Cut(old, e.hostsLine)
	if found && len(line) == len(e.hostsLine) && strings.HasSuffix(before, "\n") {
		if err := e.hosts.overwrite(before+line+after, 0o644); err != nil {
			return err
		}
	} else if err := e.hosts.replace(hosts(old, s), 0o644); err != nil {
		return err
	}
	e.hostsLine = line
	return nil
}

// hostsMark ends the line of /etc/hosts that is ours; all others are the
// user's.
const hostsMark = "# this VM"

// hostsLine is the line for this VM, as long as most others.
func hostsLine(s guestwire.Setup) string {
	if s.Hostname == "" {
		return ""
	}
	address := s.GuestIP
	if address == "" {
		address = "127.0.1.1"
	}
	return padded(address, 15) + " " + padded(s.Hostname, 47) + " " + hostsMark + "\n"
}

func padded(s string, width int) string {
	const blanks = "                                                "
	return s + blanks[:max(0, width-len(s))]
}

// hosts is the table with this VM's line instead of another VM's.
func hosts(old string, s guestwire.Setup) string {
	var b strings.Builder
	local := false
	for line := range strings.Lines(old) {
		text := strings.TrimRight(line, "\n")
		if strings.HasSuffix(text, hostsMark) {
			continue
		}
		names, _, _ := strings.Cut(text, "#")
		f := strings.Fields(names)
		local = local || len(f) > 1 && strings.HasPrefix(f[0], "127.") && f[1] == "localhost"
		b.WriteString(text + "\n")
	}
	out := b.String()
	if !local {
		out = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + out
	}
	return out + hostsLine(s)
}

// resolvConf is what a guest gets: it asks its gateway, and where it has none it
// does not ask for long.
func resolvConf(gateway [4]byte) string {
	const head = "# Written by banger at each start; once edited, it stays as it is.\n"
	if gateway == [4]byte{} {
		return head + "options timeout:1 attempts:1\n"
	}
	return head + "nameserver " + dotted(gateway) + "\n"
}

func (e *etc) setResolvConf(n *guestwire.Network, written string) error {
	const file = "/etc/resolv.conf"
	var gateway [4]byte
	if n != nil {
		gateway = n.Gateway
	}
	if now := versionOf(file); now != (fileVersion{}) && now == e.resolv && gateway == e.gateway {
		return nil
	}
	if e.resolved {
		if err := writeIfOther(resolvedDropIn, resolvedConf(gateway), 0o644); err != nil {
			return err
		}
		if resolvedHas(file) {
			e.gateway = gateway
			return nil
		}
	}
	if err := writeResolvConf(file, written, resolvConf(gateway)); err != nil {
		return err
	}
	e.resolv, e.gateway = versionOf(file), gateway
	return nil
}

// resolvedDropIn tells systemd-resolved whom to ask, whether it runs already, will
// or never does.
const resolvedDropIn = "/run/systemd/resolved.conf.d/10-banger.conf"

func resolvedConf(gateway [4]byte) string {
	text := "[Resolve]\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n"
	if gateway != [4]byte{} {
		text += "DNS=" + dotted(gateway) + "\n"
	}
	return text
}

// resolvedHas says whether a resolv.conf is one that systemd-resolved writes.
func resolvedHas(file string) bool {
	target, err := os.Readlink(file)
	return err == nil && strings.Contains(target, "run/systemd/resolve/")
}

// writeResolvConf writes the file unless the user did. written is a copy of
// what was written last, on the disk: without it the file is the image's.
func writeResolvConf(file, written, text string) error {
	last, err := os.ReadFile(written)
	first := err != nil
	have, err := os.ReadFile(file) // follows a link
	if err == nil && !first && string(have) != string(last) {
		return nil
	}
	if err := ensureFile(file, text, 0o644); err != nil {
		return err
	}
	return writeIfOther(written, text, 0o600)
}

// ensureFile makes file a plain file with that content, instead of a link
// that leads nowhere too.
func ensureFile(file, content string, mode os.FileMode) error {
	if info, err := os.Lstat(file); err == nil && info.Mode().Type() == os.ModeSymlink {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return writeIfOther(file, content, mode)
}

// writeIfOther saves the disk a write when nothing changes.
func writeIfOther(file, content string, mode os.FileMode) error {
	if have, err := os.ReadFile(file); err == nil && string(have) == content {
		return nil
	}
	return replaceFile(file, []byte(content), mode)
}
