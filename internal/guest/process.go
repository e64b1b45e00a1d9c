package guest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// process stands in for a machine where the agent is an ordinary process of
// a host: it changes nothing of it, runs commands as its own user only, and
// ends nothing but its own children.
type process struct{ procs *reaper }

func (process) lookup(name string, _ uint32) (user, error) {
	u := user{self: true, uid: uint32(os.Getuid()), gid: uint32(os.Getgid()), home: os.Getenv("HOME")}
	own, ok := readAccounts("/etc").find(strconv.Itoa(os.Getuid()))
	if ok {
		u.name, u.shell = own.name, own.shell
	}
	if u.home == "" {
		u.home = "/"
	}
	if name != "" && name != u.name && name != strconv.Itoa(os.Getuid()) {
		return u, failf("bad_request", "cannot run anything as %s: this stand-in for a guest runs as %s", name, u.name)
	}
	return u, nil
}

func (process) prepare(*processAttr) func() { return func() {} }

func (process) setClock(int64) error { return nil }

func (process) bootID() string { return readBootID() }

func (process) program() (string, error) { return os.Executable() }

func (process) setup(guestwire.Setup) ([]string, error) { return nil, nil }

func (process) awaitBoot(time.Duration) bool { return true }

func (process) askInit(time.Duration, bool) bool { return false }

func (process) problems() []string { return nil }

func (process) diskDir() string { return "/" }

func (process) layers() []string { return nil }

// signalAll signals the process groups of commands, and what they left to
// us.
func (p process) signalAll(sig int) {
	for _, pid := range p.procs.leaders() {
		_ = unix.Kill(-pid, syscall.Signal(sig))
	}
	for _, pid := range ownChildren() {
		_ = unix.Kill(pid, syscall.Signal(sig))
	}
}

// ownChildren lists the direct children of all threads.
func ownChildren() (pids []int) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		text, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (process) down() error { return nil }

// rebootStatus is the exit status that stands for a reset.
const rebootStatus = 10

func (process) end(reboot bool) {
	if reboot {
		os.Exit(rebootStatus)
	}
	os.Exit(0)
}
