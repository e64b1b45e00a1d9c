package child

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what of the host a process may open, by Landlock: nothing else,
// whatever its user may. What it has inherited it keeps. Paths that do not exist
// are left out.
type Access struct {
	Read    []string   // files, and all there is in directories: to read and to run
	Write   []string   // files and devices: to read, write and control
	Sockets []string   // directories to make sockets in, and remove them from
	Open    []*os.File // to open again, for writing only where it is open so
	TCP     bool       // listen and connect, where it has a network
}

// The rights of a rule, of which each is left out that the kernel does not know.
const (
	readRights   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_EXECUTE
	writeRights  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	socketRights = unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	dirRights    = unix.LANDLOCK_ACCESS_FS_READ_DIR | socketRights // mean nothing for a file
)

// LandlockVersion is the version of the kernel's Landlock, 0 without one.
func LandlockVersion() int {
	version, err := createRuleset(nil, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if err != nil {
		return 0
	}
	return version
}

// signalsErratum is a bit of the errata of a kernel that lets threads of one
// process signal each other, as Go's do, whatever their scopes.
const signalsErratum = 1 << 1

// handled is all that this version can refuse.
func handled(version int, a Access) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1} // of version 1
	for _, later := range []struct {
		version int
		right   uint64
	}{
		{2, unix.LANDLOCK_ACCESS_FS_REFER},
		{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
		{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	} {
		if version >= later.version {
			attr.Handled_access_fs |= later.right
		}
	}
	if version >= 4 && !a.TCP {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		if errata, err := createRuleset(nil, unix.LANDLOCK_CREATE_RULESET_ERRATA); err == nil && errata&signalsErratum != 0 {
			attr.Scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	return attr
}

// Confine confines the calling thread, and what it starts and becomes, for good:
// it has no more than a, and gains no privileges. It says whether that is in
// force, found by trying; a kernel without Landlock is no error.
func (a Access) Confine() (bool, error) {
	if err := giveUpPrivileges(); err != nil {
		return false, err
	}
	version := LandlockVersion()
	if version == 0 {
		return false, nil
	}
	attr := handled(version, a)
	ruleset, err := createRuleset(&attr, 0)
	if err != nil {
		return false, fmt.Errorf("cannot make a Landlock ruleset: %w", err)
	}
	defer unix.Close(ruleset)
	if err := a.fill(ruleset, attr.Handled_access_fs); err != nil {
		return false, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return false, fmt.Errorf("cannot enter a Landlock domain: %w", errno)
	}
	return refused(), nil
}

// giveUpPrivileges keeps the calling thread, and what it starts and becomes, from
// gaining any.
func giveUpPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	return nil
}

// refused tries what no Access allows.
func refused() bool {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EACCES)
}

// fill adds the rules, of rights that are known.
func (a Access) fill(ruleset int, known uint64) error {
	for _, of := range []struct {
		paths  []string
		rights uint64
	}{{a.Read, readRights}, {a.Write, writeRights}, {a.Sockets, socketRights}} {
		for _, path := range of.paths {
			fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // nor could the child
			}
			err = addRule(ruleset, fd, of.rights&known)
			unix.Close(fd)
			if err != nil {
				return fmt.Errorf("cannot allow %s: %w", path, err)
			}
		}
	}
	for _, f := range a.Open {
		// A file that only descriptors lead to is not Landlock's.
		if err := addRule(ruleset, int(f.Fd()), rightsOf(f)&known); err != nil && !errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("cannot allow %s: %w", f.Name(), err)
		}
	}
	return nil
}

// rightsOf are those that a descriptor gives. Whoever opens it again by /proc would get what the
// file's mode gives its user.
func rightsOf(f *os.File) uint64 {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return unix.LANDLOCK_ACCESS_FS_READ_FILE
	}
	return writeRights
}

// addRule allows rights beneath an open file. The kernel takes a rule for a file
// only if it has no rights of directories.
func addRule(ruleset, fd int, rights uint64) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &^= dirRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// createRuleset makes a ruleset, or asks what flags stand for.
func createRuleset(attr *unix.LandlockRulesetAttr, flags uintptr) (int, error) {
	var size uintptr
	if attr != nil {
		size = unsafe.Sizeof(*attr)
	}
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), size, flags)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
