// Package ports puts what listens in one guest where its host can reach it: each
// TCP port on the VM's own loopback address, and those that were published on
// addresses of the user's choice. UDP is not forwarded.
//
// It learns of listeners from whoever watches the guest, and reaches them by the
// two ways it is given: the guest's network, and its agent for what listens where
// no network leads. It knows nothing of shims, VMMs, stacks or wires.
package ports
