package qemu

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// namespaces are what QEMU needs nothing of: its network and everything else
// come by descriptor. A pid namespace is left out, since in one the child
// cannot see that its parent died before the parent-death signal was set.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS

func (d Driver) namespaces() uintptr {
	if d.ownNetwork {
		return namespaces &^ unix.CLONE_NEWNET
	}
	return namespaces
}

// access is what QEMU opens itself. Disks are not among it, which it inherits.
// memory is what lies behind fdMemory, which it opens again, or nil.
func (d Driver) access(cfg vmm.Config, memory *os.File) *child.Access {
	a := &child.Access{
		Read:  append(programFiles(cfg.At(cfg.Binary)), "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/sys/devices/system"),
		Write: []string{"/dev/null", "/dev/urandom"},
		TCP:   d.ownNetwork,
	}
	a.Read = append(a.Read, child.Software...)
	for _, file := range []string{cfg.Kernel, cfg.Initrd} {
		if file != "" {
			a.Read = append(a.Read, cfg.At(file))
		}
	}
	if cfg.Accel == vmm.KVM {
		a.Write = append(a.Write, kvmDevice)
	}
	if d.ownNetwork {
		a.Read = append(a.Read, "/etc/resolv.conf")
	}
	if memory != nil {
		a.Open = append(a.Open, memory)
	}
	return a
}

// programFiles is what belongs to a QEMU that is not the system's: in the prefix
// it is installed under, or beside it where it was built, and the libraries it is linked
// with, wherever they are. Never all of a directory that may be somebody's home.
func programFiles(binary string) []string {
	files := []string{binary}
	real, err := filepath.EvalSymlinks(binary)
	if err != nil {
		return files
	}
	prefix := filepath.Dir(real)
	if filepath.Base(prefix) == "bin" {
		prefix = filepath.Dir(prefix)
		files = append(files, filepath.Dir(real))
	}
	files = append(files, child.Linked(real)...)
	for _, part := range []string{"lib", "lib64", "libexec", "share/qemu", "pc-bios", "qemu-bundle"} {
		files = append(files, filepath.Join(prefix, part))
	}
	return files
}

// start starts QEMU in namespaces of its own, or without where the host does
// not let us make them (by sysctl, limit, security module or build). The seccomp
// filter is part of its command line.
func start(spec child.Spec) (*child.Child, error) {
	// To try without a child first would cost each start 2 ms.
	c, err := child.Start(spec)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return c, err
	}
	spec.Namespaces = 0
	return child.Start(spec)
}

// Withheld names what would hold QEMU back and this host does not allow this user.
func Withheld() []string {
	var names []string
	for _, ns := range child.Namespaces {
		if namespaces&ns.Flag != 0 && !child.CanIsolate(unix.CLONE_NEWUSER|ns.Flag) {
			names = append(names, ns.Name)
		}
	}
	// A kernel without filters does not know the question.
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		names = append(names, "seccomp")
	}
	if child.LandlockVersion() == 0 {
		names = append(names, child.Landlock)
	}
	return names
}
