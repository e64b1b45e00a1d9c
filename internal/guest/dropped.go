package guest

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	sockDestroy = 21 // SOCK_DESTROY of linux/sock_diag.h

	// States of linux/tcp_states.h; a UDP socket that is connected counts as
	// established.
	stateEstablished = 1
	stateTimeWait    = 6
	stateClose       = 7
	allStates        = 1<<12 - 1

	diagIDLen  = 48
	diagSource = 4 // in the id: after the ports
)

// dropConnections ends the connections of the machine that this one was: the other
// side knows nothing of it, and who only reads would wait for ever. What the guest
// has with itself stays.
func dropConnections() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		tcp := dropKind(fd, family, unix.IPPROTO_TCP, allStates&^(1<<stateListen|1<<stateTimeWait|1<<stateClose))
		udp := dropKind(fd, family, unix.IPPROTO_UDP, 1<<stateEstablished)
		errs = append(errs, tcp, udp)
	}
	return errors.Join(errs...)
}

// prepareDrop has the kernel load what dropConnections needs of it: under emulation
// that takes longer than all the rest, and whoever is copied waits for nobody now.
func prepareDrop() {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		_, _ = listKind(fd, unix.AF_INET, protocol, 0)
	}
}

// dropKind destroys the sockets of one kind that lead outside.
func dropKind(fd int, family, protocol uint8, states uint32) error {
	ids, err := listKind(fd, family, protocol, states)
	for _, id := range ids {
		if err == nil {
			err = sendDiag(fd, sockDestroy, unix.NLM_F_ACK, family, protocol, 0, id)
		}
		if err == nil {
			_, err = receiveIDs(fd, family)
		}
		if err == unix.ENOENT {
			err = nil // it has ended meanwhile
		}
	}
	return err
}

// listKind lists the sockets of one kind that lead outside.
func listKind(fd int, family, protocol uint8, states uint32) (ids [][]byte, err error) {
	err = sendDiag(fd, sockDiagByFamily, unix.NLM_F_DUMP, family, protocol, states, make([]byte, diagIDLen))
	if err != nil {
		return nil, err
	}
	return receiveIDs(fd, family)
}

func sendDiag(fd int, kind, flags uint16, family, protocol uint8, states uint32, id []byte) error {
	var r request
	body := binary.NativeEndian.AppendUint32([]byte{family, protocol, 0, 0}, states)
	r.add(kind, flags, append(body, id...)...)
	return os.NewSyscallError("send", unix.Sendto(fd, r.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

// receiveIDs reads the answers to one request: the ids of sockets that lead outside.
func receiveIDs(fd int, family uint8) (ids [][]byte, err error) {
	buf := make([]byte, netlinkReceiveLen)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return ids, os.NewSyscallError("receive", err)
		}
		for b := buf[:n]; len(b) >= netlinkHeaderLen; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < netlinkHeaderLen || size > len(b) {
				break
			}
			body := b[netlinkHeaderLen:size]
			switch kind := binary.NativeEndian.Uint16(b[4:]); {
			case kind == unix.NLMSG_DONE:
				return ids, nil
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if code := -int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return ids, unix.Errno(code)
				}
				return ids, nil
			case len(body) >= diagMessageLen:
				if id := body[4 : 4+diagIDLen]; leadsOutside(id, family) {
					ids = append(ids, append([]byte{}, id...))
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

func leadsOutside(id []byte, family uint8) bool {
	return !addressIn(id[diagSource:], family).Unmap().IsLoopback()
}
