package guest

import (
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"banger/internal/guest/boot"
	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// system is the real machine, with the agent as its PID 1.
type system struct {
	*boot.System
	oomScore *os.File // the agent's own, or nil
	etc      *etc

	users    sync.Mutex // guards what follows, and adding users
	accounts accounts
	read     [2]fileVersion // of passwd and group, as they were read

	boot    bootOwner
	network network

	mu     sync.Mutex
	failed []string // what setup could not do, the last time
}

func newSystem(s *boot.System) *system {
	score, _ := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	m := &system{System: s, oomScore: score, etc: newEtc()}
	m.boot.kernels = openBootID()
	return m
}

func (m *system) lookup(name string, uid uint32) (user, error) {
	if name == "" {
		name = "root"
	}
	m.users.Lock()
	defer m.users.Unlock()
	// Looking is several times cheaper than reading through an overlay.
	if now := [2]fileVersion{versionOf("/etc/passwd"), versionOf("/etc/group")}; now != m.read {
		m.accounts, m.read = readAccounts("/etc"), now
	}
	u, ok := m.accounts.find(name)
	if !ok {
		var err error
		if u, err = addUser("", name, uid); err != nil {
			return u, err
		}
	}
	u.self = u.uid == 0 && u.gid == 0 && len(u.groups) == 0
	return u, nil
}

// fileVersion tells one content of a file from the next.
type fileVersion struct {
	ino           uint64
	size          int64
	mtime, change unix.Timespec
}

func versionOf(file string) (v fileVersion) {
	var st unix.Stat_t
	if unix.Stat(file, &st) == nil {
		v = versionIn(&st)
	}
	return v
}

func versionIn(st *unix.Stat_t) fileVersion { return fileVersion{st.Ino, st.Size, st.Mtim, st.Ctim} }

// prepare makes a child begin in its cgroup and with the limits of ordinary
// processes. Limits are inherited, and cannot be set in between without
// another exec; so the agent has the child's while it forks. It loses nothing
// by it: the kernel never kills PID 1 for memory.
func (m *system) prepare(attr *processAttr) (undo func()) {
	if m.Children != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(m.Children.Fd())
	}
	m.limits(1024, 0)
	done := punctual()
	return func() {
		done()
		m.limits(boot.MaxFiles, -1000)
	}
}

func (m *system) limits(files uint64, oom int) {
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: boot.MaxFiles})
	if m.oomScore != nil {
		_, _ = m.oomScore.WriteAt([]byte(strconv.Itoa(oom)), 0)
	}
}

func (m *system) problems() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(append([]string{}, m.Problems...), m.failed...)
}

func (m *system) program() (string, error) { return boot.AgentPath, nil }

func (m *system) diskDir() string {
	if m.Disk == nil {
		return "/"
	}
	return "/proc/self/fd/" + strconv.Itoa(int(m.Disk.Fd()))
}

func (m *system) layers() []string {
	if m.Disk == nil {
		return nil
	}
	return boot.Layers(m.diskDir())
}

func (m *system) setup(s guestwire.Setup) ([]string, error) {
	failed := m.apply(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = failed
	return failed, nil
}

func (*system) awaitBoot(time.Duration) bool { return true }

func (*system) askInit(time.Duration, bool) bool { return false }

func (m *system) signalAll(sig int) { _ = unix.Kill(-1, syscall.Signal(sig)) }

func (m *system) down() error { return m.Down() }

// end does not return.
func (m *system) end(reboot bool) {
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	_ = unix.Reboot(how)
	select {}
}
