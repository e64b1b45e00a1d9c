package guest

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// netlink is a socket to the kernel's routing tables. Requests ask for no answer:
// the kernel has carried them out when the call returns, and only failures have
// left a message by then. That saves a restored guest half of the code.
type netlink struct{ fd int }

func openNetlink() (netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	return netlink{fd}, err
}

// request is one or several messages being put together.
type request struct {
	b     []byte
	begin int // of the last message
}

// add begins a message, whose fixed part is body.
func (r *request) add(kind uint16, flags uint16, body ...byte) {
	r.begin = len(r.b)
	r.b = append(r.b, 0, 0, 0, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = append(r.b, 0, 0, 0, 0, 0, 0, 0, 0) // number and port: nobody asks
	r.grow(body)
}

// attribute adds one to the message.
func (r *request) attribute(kind uint16, value []byte) {
	head := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	r.grow(append(binary.NativeEndian.AppendUint16(head, kind), value...))
}

func (r *request) grow(part []byte) {
	r.b = append(r.b, part...)
	for len(r.b)%unix.NLMSG_ALIGNTO != 0 {
		r.b = append(r.b, 0)
	}
	binary.NativeEndian.PutUint32(r.b[r.begin:], uint32(len(r.b)-r.begin))
}

// do carries out the messages of a request in order. The kernel goes on after one
// that fails; the first failure is what counts.
func (n netlink) do(r request) error {
	if _, err := unix.Write(n.fd, r.b); err != nil {
		return err
	}
	var first error
	for {
		var answer [256]byte
		size, _, err := unix.Recvfrom(n.fd, answer[:], unix.MSG_DONTWAIT)
		if err != nil || size < unix.SizeofNlMsghdr+4 {
			return first
		}
		h := (*unix.NlMsghdr)(unsafe.Pointer(&answer[0]))
		code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:]))
		if h.Type == unix.NLMSG_ERROR && code != 0 && first == nil {
			first = unix.Errno(-code)
		}
	}
}

func int32Bytes(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
