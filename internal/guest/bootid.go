package guest

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// bootOwner is whose boot this is. The kernel makes the id of a boot when it
// is first read and never again, so that of a machine that was forked while it
// ran is also its fork's, until that gets one of its own.
type bootOwner struct {
	mu      sync.Mutex
	early   bool   // an init reads the id also in a machine that is nobody's
	machine string // whose the boot was when its id was first read; "" before
	mounted bool   // an id of ours is over the kernel's
	kernels int    // descriptor of the kernel's, unread, or -1
}

// openBootID opens the kernel's id without reading it, since to find the file
// takes a restored guest longer than to read it.
func openBootID() int {
	fd, err := unix.Open(bootIDFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// bootID reads the id.
func (m *system) bootID() string {
	b := &m.boot
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.mounted && b.kernels >= 0 {
		var id [64]byte
		if n, err := unix.Pread(b.kernels, id[:], 0); err == nil {
			return strings.TrimSpace(string(id[:n]))
		}
	}
	return readBootID()
}

func readBootID() string {
	id, _ := os.ReadFile(bootIDFile)
	return strings.TrimSpace(string(id))
}

// become makes the boot a machine's. It calls change where the id is another
// one's, again if that fails.
func (b *bootOwner) become(s guestwire.Setup, change func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Anybody && !b.early || s.MachineID == "" {
		return nil
	}
	if b.machine != "" && b.machine != s.MachineID {
		if err := change(); err != nil {
			return err
		}
	}
	b.machine = s.MachineID
	return nil
}

// ownBootID gives a live fork an id that its parent does not have. It comes
// after the random numbers are this machine's own. A process that has read the old
// one, and a container with a /proc of its own, keep that.
func (m *system) ownBootID(s guestwire.Setup) error {
	return m.boot.become(s, m.boot.cover)
}

// cover mounts a new id over the present one.
func (b *bootOwner) cover() error {
	id, err := newUUID()
	if err != nil {
		return err
	}
	if b.mounted {
		if err := unix.Unmount(bootIDFile, unix.MNT_DETACH); err != nil {
			return err
		}
		b.mounted = false
	}
	const file = "/run/.banger-boot-id"
	if err := replaceFile(file, []byte(id+"\n"), 0o444); err != nil {
		return err
	}
	defer os.Remove(file) // the mount holds it
	if err := unix.Mount(file, bootIDFile, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	b.mounted = true
	return unix.Mount("", bootIDFile, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// newUUID is a random one, of version 4. It asks the kernel itself: a
// generator in this process would be its parent's too.
func newUUID() (string, error) {
	var b [16]byte
	if n, err := unix.Getrandom(b[:], 0); err != nil || n != len(b) {
		return "", fmt.Errorf("no random bytes: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
