package reach

import "net"

// MaxMTU is the largest MTU whose frames QEMU carries whole. Most of what a packet
// costs is the same for all sizes.
const MaxMTU = 65520

// The usual stations of the cable. Each VM has its own, so that all may have the
// same.
var (
	GuestMAC   = net.HardwareAddr{0x52, 0x54, 0x00, 0x62, 0x67, 0x02}
	GatewayMAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x62, 0x67, 0x01}
)

// Framing says how frames are told apart on a descriptor.
type Framing int

const (
	// Stream is QEMU's `-netdev stream`: each frame after its length in four
	// bytes, the highest first.
	Stream Framing = iota
	// Packets gives and takes one frame with each read and write, as packet
	// sockets and sockets of datagrams do.
	Packets
)
