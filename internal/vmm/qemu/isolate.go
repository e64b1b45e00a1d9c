package qemu

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/vmm/child"
)

type namespace struct {
	flag uintptr
	name string
}

func (d Driver) namespaces() []namespace {
	if !d.ownNetwork {
		return namespaces
	}
	return slices.DeleteFunc(slices.Clone(namespaces), func(n namespace) bool { return n.flag == unix.CLONE_NEWNET })
}

// namespaces are what QEMU needs nothing of: its network and everything else
// come by descriptor. A pid namespace is left out, since in one the child
// cannot see that its parent died before the parent-death signal was set.
var namespaces = []namespace{
	{unix.CLONE_NEWUSER, "user namespace"},
	{unix.CLONE_NEWNET, "network namespace"},
	{unix.CLONE_NEWIPC, "ipc namespace"},
	{unix.CLONE_NEWUTS, "uts namespace"},
	{unix.CLONE_NEWNS, "mount namespace"},
}

// start starts QEMU in namespaces of its own, or without where the host does
// not let us make them (by sysctl, limit, security module or build), and says
// what holds it back. The seccomp filter is part of its command line.
func start(namespaces []namespace, spec child.Spec) (*child.Child, []string, error) {
	var names []string
	for _, ns := range namespaces {
		spec.Namespaces |= ns.flag
		names = append(names, ns.name)
	}
	// To try without a child first would cost each start 4 ms. Where it fails,
	// Go loses two descriptors, once in the life of a shim.
	c, err := child.Start(spec)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return c, append(names, "seccomp"), err
	}
	spec.Namespaces = 0
	c, err = child.Start(spec)
	return c, []string{"seccomp"}, err
}
