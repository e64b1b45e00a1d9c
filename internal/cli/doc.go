// Package cli is the command line of banger: one file per command, and the
// voice (what goes to stdout and stderr, colour, progress, questions, exit
// codes) in files of its own.
//
// Commands speak to the daemon through the client and, for what flows to and
// from a guest, straight to a VM's shim. They decide nothing about VMs and
// touch no file of banger's own.
package cli
