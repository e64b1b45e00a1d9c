package guest

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// apply makes the machine this VM's own and says what failed. It is done
// after every boot and every restore, so each step can be done again.
func (m *system) apply(s guestwire.Setup) (failed []string) {
	for _, step := range []struct {
		name string
		do   func(guestwire.Setup) error
	}{
		{"set the clock", func(s guestwire.Setup) error { return m.setClock(s.TimeNanos) }}, // first: each moment makes it worse
		{"seed the random numbers", seedRandom},
		{"give the boot an id of its own", m.ownBootID},
		{"set the host name", setHostname},
		{"write /etc/machine-id", writeMachineID},
		{"write /etc/hosts", func(s guestwire.Setup) error { return writeHosts("/etc/hosts", s) }},
		{"write /etc/resolv.conf", func(guestwire.Setup) error { return writeResolvConf("/etc/resolv.conf", m.written()) }},
		{"enlarge the disk", func(s guestwire.Setup) error { return m.GrowDisk(s.DiskBytes) }},
	} {
		if err := step.do(s); err != nil {
			failed = append(failed, fmt.Sprintf("cannot %s: %v", step.name, err))
		}
	}
	return failed
}

func (*system) setClock(nanos int64) error {
	if nanos == 0 {
		return nil
	}
	now := unix.NsecToTimespec(nanos)
	return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
}

// Of <linux/random.h>.
const (
	addEntropy = 0x40085203 // RNDADDENTROPY
	reseed     = 0x5207     // RNDRESEEDCRNG
)

// seedRandom credits the host's bytes and makes the kernel use them at once:
// two forks of one machine begin with the same generator.
func seedRandom(s guestwire.Setup) error {
	if len(s.Entropy) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(s.Entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(s.Entropy)))
	info = append(info, s.Entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), addEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), reseed, 0); errno != 0 {
		return errno
	}
	return nil
}

func setHostname(s guestwire.Setup) error {
	if s.Hostname == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return err
	}
	return writeLine("/etc/hostname", s.Hostname, 0o644)
}

func writeMachineID(s guestwire.Setup) error {
	if s.MachineID == "" {
		return nil
	}
	return writeLine("/etc/machine-id", s.MachineID, 0o444)
}

// hostsMark ends the line of /etc/hosts that is ours; all others are the
// user's.
const hostsMark = "# this VM"

func writeHosts(file string, s guestwire.Setup) error {
	old, _ := os.ReadFile(file)
	text := hosts(string(old), s)
	if len(text) == len(old) && text != string(old) {
		return overwrite(file, text)
	}
	return writeIfOther(file, text, 0o644)
}

// writeLine writes a file of one line in its place where it can: to replace it
// takes a hundred times the instructions, which a restored guest under
// emulation feels. Cut short, it is written again at the next start.
func writeLine(file, line string, mode os.FileMode) error {
	old, err := os.ReadFile(file)
	switch {
	case err == nil && string(old) == line+"\n":
		return nil
	case err != nil || len(old) < len(line)+1:
		return replaceFile(file, []byte(line+"\n"), mode)
	case len(old) > len(line)+1:
		if err := overwrite(file, line+"\n"); err != nil {
			return err
		}
		return os.Truncate(file, int64(len(line)+1))
	}
	return overwrite(file, line+"\n")
}

// overwrite writes over the beginning of a file.
func overwrite(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, []byte(text), 0)
	return err
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
	if s.Hostname != "" {
		address := s.GuestIP
		if address == "" {
			address = "127.0.1.1"
		}
		out += fmt.Sprintf("%-15s %-47s %s\n", address, s.Hostname, hostsMark)
	}
	return out
}

// resolvConf is what a guest without an answer of its own gets.
const resolvConf = "# Written by banger at each start; once edited, it stays as it is.\n" +
	"options timeout:1 attempts:1\n"

// writeResolvConf writes the file unless the user did. written is a copy of
// what was written last, on the disk: without it the file is the image's.
func writeResolvConf(file, written string) error {
	last, err := os.ReadFile(written)
	first := err != nil
	have, err := os.ReadFile(file) // follows a link
	if err == nil && !first && string(have) != string(last) {
		return nil
	}
	if err := ensureFile(file, resolvConf, 0o644); err != nil {
		return err
	}
	return writeIfOther(written, resolvConf, 0o600)
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

func (m *system) written() string { return m.diskDir() + "/.banger/resolv.conf" }

// writeIfOther saves the disk a write when nothing changes.
func writeIfOther(file, content string, mode os.FileMode) error {
	if have, err := os.ReadFile(file); err == nil && string(have) == content {
		return nil
	}
	return replaceFile(file, []byte(content), mode)
}

// uptime is how long the kernel has run.
func uptime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}
