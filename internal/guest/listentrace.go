package guest

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stateChange is the kernel's trace point for TCP sockets that become something
// else, and becomesListener what of it matters here.
const (
	stateChange     = "events/sock/inet_sock_set_state/id"
	becomesListener = "newstate == 10 || oldstate == 10"
)

// traceListeners calls f, from goroutines of its own, whenever a TCP socket
// begins to listen or ceases to. It goes on for ever. While there are none the
// kernel says nothing, so that it costs nothing.
func traceListeners(f func()) error {
	id, err := tracePoint(stateChange)
	if err != nil {
		return err
	}
	var all []*trace
	for cpu := range runtime.NumCPU() {
		t, err := openTrace(id, cpu)
		if err != nil {
			for _, t := range all {
				_ = t.file.Close()
			}
			return err
		}
		all = append(all, t)
	}
	for _, t := range all {
		go t.follow(f)
	}
	return nil
}

// tracePoint reads the number of a trace point, from a mount that nobody else
// sees.
func tracePoint(name string) (id uint64, err error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("openat", err)
	}
	defer unix.Close(fd)
	var text [32]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text[:n])), 10, 64)
}

// trace hears of a trace point on one processor.
type trace struct {
	file *os.File
	page *unix.PerfEventMmapPage
}

func openTrace(id uint64, cpu int) (*trace, error) {
	attr := &unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample: 1, Wakeup: 1,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitDisabled,
	}
	fd, err := unix.PerfEventOpen(attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("perf_event_open", err)
	}
	t := &trace{}
	if err = unix.SetNonblock(fd, true); err == nil {
		err = t.start(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	t.file = os.NewFile(uintptr(fd), "trace")
	return t, nil
}

// start has the kernel write what happens into a buffer, over what was there
// before: nobody reads it. It cannot be waited for without one.
func (t *trace) start(fd int) error {
	filter, err := unix.BytePtrFromString(becomesListener)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(filter))); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	ring, err := unix.Mmap(fd, 0, 2*os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	t.page = (*unix.PerfEventMmapPage)(unsafe.Pointer(&ring[0]))
	return os.NewSyscallError("ioctl", unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0))
}

// follow calls f whenever more has been written.
func (t *trace) follow(f func()) {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return
	}
	last := uint64(0)
	for err == nil {
		err = raw.Read(func(uintptr) bool {
			now := atomic.LoadUint64(&t.page.Data_head)
			grown := now != last
			last = now
			return grown
		})
		f()
	}
}
