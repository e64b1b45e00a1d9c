package guest

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// apply makes the machine this VM's own and says what failed. It is done
// after every boot and every restore, so each step can be done again.
func (m *system) apply(s guestwire.Setup) (failed []string) {
	m.etc.mu.Lock()
	defer m.etc.mu.Unlock()
	for _, step := range []struct {
		name string
		do   func(guestwire.Setup) error
	}{
		{"set the clock", func(s guestwire.Setup) error { return m.setClock(s.TimeNanos) }}, // first: each moment makes it worse
		{"seed the random numbers", seedRandom},
		{"give the boot an id of its own", m.ownBootID},
		{"set the host name", m.etc.setHostname},
		{"write /etc/machine-id", m.etc.setMachineID},
		{"write /etc/hosts", m.etc.setHosts},
		{"end old connections", dropOld},
		{"set the network", func(s guestwire.Setup) error { return m.network.apply(s.Network) }},
		{"write /etc/resolv.conf", func(s guestwire.Setup) error { return m.etc.setResolvConf(s.Network, m.written()) }},
		{"trust the host's certificates", func(s guestwire.Setup) error { return m.etc.trust.apply(s.Trust) }},
		{"enlarge the disk", func(s guestwire.Setup) error { return m.GrowDisk(s.DiskBytes) }},
	} {
		if err := step.do(s); err != nil {
			failed = append(failed, fmt.Sprintf("cannot %s: %v", step.name, err))
		}
	}
	return failed
}

func dropOld(s guestwire.Setup) error {
	if s.Network == nil || !s.Network.Drop {
		return nil
	}
	return dropConnections()
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
	fd, err := unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(s.Entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(s.Entropy)))
	info = append(info, s.Entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), addEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), reseed, 0); errno != 0 {
		return errno
	}
	return nil
}

func (m *system) written() string { return m.diskDir() + "/.banger/resolv.conf" }

// uptime is how long the kernel has run.
func uptime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}
