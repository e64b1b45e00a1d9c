// Package guestwire is the wire between a host and the agent in its guest: frames,
// streams with flow control, and the messages both sides exchange. A client
// speaks the same wire to a shim, which joins its streams to the guest's.
//
// It knows nothing of processes, VMs or sockets, and imports nothing of the
// project: the guest binary is built from it.
//
// # Frames
//
// Everything on the wire is a frame:
//
//	type    u8
//	length  u24, big endian, of the payload; at most MaxPayload
//	payload
//
// Integers are big endian. Strings and byte strings inside a payload are a u32
// length and the bytes; lists are a u32 count and the items.
//
//	1 HELLO    magic "bngr", major u16, minor u16, token [16]byte
//	2 OPEN     stream u32, kind u8, body
//	3 DATA     stream u32, channel u8, bytes (at most MaxData)
//	4 EOF      stream u32, channel u8
//	5 CREDIT   stream u32, channel u8, n u32
//	6 CONTROL  stream u32, code u8, body
//	7 RESULT   stream u32, status u8, body
//	8 RESET    stream u32
//
// # Versions
//
// Each side begins with HELLO. The sides must agree on major; the smaller
// minor is what both speak. Whoever connects may go on before the other's HELLO is
// there, with what every minor has.
//
// # Starting afresh
//
// A restored guest gets no event that tells it that its host is another one.
// So each HELLO of the host carries a random token. Whoever connects to a
// guest that has spoken before writes the token's 16 bytes raw and then a new
// HELLO; the guest scans its input for the token, in the middle of a frame
// too, drops all streams, and answers in the same way: the token raw, then
// HELLO. The host discards what it reads until it has seen the token.
//
// # Streams
//
// The side that opens a stream picks its number: never 0, never reused on one
// connection. A stream carries up to MaxChannels byte channels each way, each
// with a window of Window bytes: a sender may have no more than that
// unacknowledged, and a receiver hands out CREDIT as its reader consumes. So a
// reader that stands still delays nobody else, and no side keeps more than
// Window bytes a channel. EOF ends one direction of one channel. RESULT, sent
// by the accepting side, ends the stream after everything it sent; RESET, sent
// by the opening side, abandons it. What arrives for a stream that is not
// there is ignored, since the two may cross.
package guestwire

// Version of the wire. A newer minor only adds.
const (
	Major = 1
	Minor = 7 // 1 has KindSetup and KindClock, 2 KindDial, 3 Setup.Network, 4 KindListeners, 5 KindListen, Exec.Program, Exit.Signal, 6 Setup.User, 7 Setup.Trust
)

// Limits of the wire.
const (
	MaxPayload  = 1 << 20     // bytes of a frame's payload
	MaxData     = 32<<10 - 64 // bytes of one DATA frame: others get between, and a virtio port takes the frame in one write
	Window      = 256 << 10
	MaxChannels = 4
	MaxStreams  = 1024 // open at once on one connection
	reserve     = 32   // of these that are for what matters more
	maxControls = 256  // controls waiting on one stream
	maxControl  = 4096 // bytes of a control's body
	TokenLen    = 16
)
