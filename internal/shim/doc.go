// Package shim is the supervisor of one running VM, and its client.
//
// A shim is a process of its own per running VM: it owns the VMM, the link to
// the guest agent, the console log and a control socket in the VM's directory.
// Daemons and CLIs come and go; what flows through a shim does not notice.
//
// # Life
//
// Starter.Start writes launch.json and starts the process; it answers once the
// socket does. The VMM dies with its shim. When the VMM ends, the shim writes
// exit.json, removes its socket, gives up its lock, tells everybody who
// listens, and ends; a guest that merely rebooted is booted again instead.
// Everything after the lock was given up is politeness: the next shim may
// already run.
//
// # Saved machines
//
// A shim begins its VM by a boot, or takes up a machine that was saved: a
// template's, a copy of a VM that ran, or what this VM was suspended with
// (suspend.go, wake.go). It finds the layers of the disk by itself each time.
//
// # Control socket
//
// Both sides speak guestwire, the client opens. Kinds below KindShim go to the
// guest: a stream is relayed frame by frame, credit included, so the shim keeps
// nothing of it. Kind KindShim carries the methods in status.go.
//
// The package knows nothing of rows, images or operations; what it starts is
// described by Launch. The stack of the guest's network and the layers of its disk
// come from whoever runs a shim (parts.go), so that a client is small.
package shim
