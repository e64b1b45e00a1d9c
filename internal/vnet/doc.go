// Package vnet is the network of one VM: a TCP/IP stack in user space that takes
// the guest's Ethernet frames from a descriptor and decides, connection by
// connection, what may leave: the policy and its rules are reach's. It holds the
// guest's DNS, the splicing of streams and datagrams, the way in for port forwards,
// and the record of what went through and what was refused.
//
// It needs no privilege, opens nothing itself (who makes it gives it a dialer and
// a resolver), and must not know of shims, VMMs, rows or other VMs.
package vnet
