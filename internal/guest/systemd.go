package guest

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// systemd is the real machine, with systemd as its PID 1.
type systemd struct {
	*system
	booted chan struct{} // closed once systemd has brought everything up

	mu    sync.Mutex // guards what follows
	begin *os.File   // lets systemd begin; nil once it may
	id    string     // the machine's, as it was set last

	thawing sync.Mutex
	thaw    *time.Timer // lets systemd go on, or nil
}

const (
	// notifySocket is where systemd says that it has brought everything up.
	notifySocket = "/run/initramfs/banger/notify"

	// bootTime is how long anybody waits for that: a unit that hangs must not
	// keep people out.
	bootTime = 60 * time.Second

	// Of systemd(1): SIGRTMIN+4 and +5, as the C library counts.
	sigPowerOff = syscall.Signal(34 + 4)
	sigReboot   = syscall.Signal(34 + 5)
)

func newSystemd(s *system, begin *os.File) *systemd {
	m := &systemd{system: s, booted: make(chan struct{}), begin: begin}
	s.System.Problems = append(s.System.Problems, failures(
		named{"hear of systemd's start", m.listen},
		named{"configure systemd", configureSystemd},
		named{"spare systemd work", func() error { return spareSystemd("/") }},
	)...)
	s.etc.resolved, s.boot.early = true, true
	return m
}

type named struct {
	name string
	do   func() error
}

func failures(steps ...named) (failed []string) {
	for _, s := range steps {
		if err := s.do(); err != nil {
			failed = append(failed, "cannot "+s.name+": "+err.Error())
		}
	}
	return failed
}

// configureSystemd tells it what is different in this machine, at a place that
// is gone with the next boot.
func configureSystemd() error {
	var errs []error
	for unit, text := range map[string]string{
		// A halted machine would go on for ever for its host.
		"systemd-halt.service": "[Service]\nExecStart=\nExecStart=systemctl --force poweroff\n",
		// It is started again whenever a machine becomes another one.
		"systemd-journald.service": "[Unit]\nStartLimitIntervalSec=0\n",
	} {
		errs = append(errs, replaceFile(runtimeUnits+"/"+unit+".d/banger.conf", []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// listen waits for systemd's word.
func (m *systemd) listen() error {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return err
	}
	go func() {
		defer os.Remove(notifySocket)
		defer c.Close()
		var b [4096]byte
		for {
			n, err := c.Read(b[:])
			if err != nil || saysReady(string(b[:n])) {
				unmaskGenerators("/")
				close(m.booted)
				return
			}
		}
	}()
	return nil
}

// saysReady reads a message of sd_notify(3).
func saysReady(message string) bool {
	for line := range strings.Lines(message) {
		if strings.TrimSpace(line) == "READY=1" {
			return true
		}
	}
	return false
}

func (m *systemd) awaitBoot(limit time.Duration) bool {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-m.booted:
		return true
	case <-late.C:
		return false
	}
}

// setup lets systemd begin once the machine is somebody's. Where it became
// another one's, services that remember whose it was are started again.
func (m *systemd) setup(s guestwire.Setup) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gateway := m.etc.gateway
	if m.begin == nil && !s.Anybody {
		m.holdBack()
	}
	failed, err := m.system.setup(s)
	if err != nil {
		return nil, err
	}
	switch {
	case m.begin != nil:
		_, err = m.begin.Write([]byte{1})
		_ = m.begin.Close()
		m.begin = nil
	default:
		if s.MachineID != "" && s.MachineID != m.id {
			renew("systemd-journald.service")
			renew("systemd-hostnamed.service")
		}
		if m.etc.gateway != gateway {
			renew("systemd-resolved.service")
		}
	}
	m.id = s.MachineID
	return failed, err
}

// headStart is how long systemd and its services stand still when a machine is
// taken up: they have much to say to a clock that jumps and a machine that has
// another name, and would say it, where there is one processor, before the guest is
// ready and the first command has run.
const headStart = 300 * time.Millisecond

func (m *systemd) holdBack() {
	m.thawing.Lock()
	defer m.thawing.Unlock()
	freeze("1")
	if m.thaw != nil {
		m.thaw.Stop()
	}
	m.thaw = time.AfterFunc(headStart, m.letGo)
}

func (m *systemd) letGo() {
	m.thawing.Lock()
	defer m.thawing.Unlock()
	if m.thaw != nil {
		m.thaw.Stop()
		m.thaw = nil
		freeze("0")
	}
}

func freeze(how string) {
	for _, group := range []string{"init.scope", "system.slice"} {
		_ = os.WriteFile("/sys/fs/cgroup/"+group+"/cgroup.freeze", []byte(how), 0)
	}
}

// renew ends a service that runs. systemd starts it again, at once or when it is
// asked for, and has kept its sockets. To ask systemd for it would take as long as
// a command, and nobody has to wait for the end of it.
func renew(service string) {
	text, _ := os.ReadFile("/sys/fs/cgroup/system.slice/" + service + "/cgroup.procs")
	for word := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}
}

// askInit has systemd shut down. What hinders it at half of the time is killed,
// and at the end of it the machine ends as it is, with all that was written.
func (m *systemd) askInit(timeout time.Duration, reboot bool) bool {
	sig := sigPowerOff
	if reboot {
		sig = sigReboot
	}
	m.letGo()
	_ = unix.Kill(1, sig)
	time.AfterFunc(timeout/2, func() { m.signalAll(int(unix.SIGKILL)) })
	time.AfterFunc(timeout, func() {
		_ = m.down()
		m.end(reboot)
	})
	return true
}
