package guest

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socket is one that listens.
type socket struct {
	address netip.AddrPort
	inode   uint32
}

// listeningSockets lists the TCP sockets that listen.
func listeningSockets() ([]socket, error) {
	var all []socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := dumpSockets(family)
		if err != nil { // the kernel may lack tcp_diag
			found, err = readSockets(family)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// What linux/inet_diag.h calls inet_diag_req_v2 and inet_diag_msg, and where in
// the latter things are.
const (
	diagRequestLen = 56
	diagMessageLen = 72
	diagPort       = 4
	diagAddress    = 8
	diagInode      = 68

	stateListen       = 10
	sockDiagByFamily  = 20
	netlinkHeaderLen  = unix.SizeofNlMsghdr
	netlinkReceiveLen = 32 << 10
)

// dumpSockets asks the kernel for those of one family. Nothing else is looked
// at on the way, however many connections there are.
func dumpSockets(family uint8) ([]socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := make([]byte, netlinkHeaderLen+diagRequestLen)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := request[netlinkHeaderLen:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], 1<<stateListen)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("send", err)
	}
	return receiveSockets(fd, family)
}

func receiveSockets(fd int, family uint8) (all []socket, err error) {
	buf := make([]byte, netlinkReceiveLen)
	for done := false; !done; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("receive", err)
		}
		if all, done, err = addSockets(all, buf[:n], family); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// addSockets reads the messages of one datagram.
func addSockets(all []socket, b []byte, family uint8) (_ []socket, done bool, err error) {
	for len(b) >= netlinkHeaderLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < netlinkHeaderLen || n > len(b) {
			break
		}
		body := b[netlinkHeaderLen:n]
		switch typ := binary.NativeEndian.Uint16(b[4:]); {
		case typ == unix.NLMSG_DONE:
			return all, true, nil
		case typ == unix.NLMSG_ERROR && len(body) >= 4:
			return nil, true, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case len(body) >= diagMessageLen:
			all = append(all, socket{
				netip.AddrPortFrom(addressIn(body[diagAddress:], family), binary.BigEndian.Uint16(body[diagPort:])),
				binary.NativeEndian.Uint32(body[diagInode:]),
			})
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return all, false, nil
}

func addressIn(b []byte, family uint8) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

// readSockets reads those of one family from a table for people, in which those
// that listen come first.
func readSockets(family uint8) ([]socket, error) {
	file := "/proc/net/tcp"
	if family == unix.AF_INET6 {
		file = "/proc/net/tcp6"
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) { // the kernel lacks the family
		return nil, nil
	}
	var all []socket
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		address, ok := parseSocketAddress(f[1])
		inode, err := strconv.ParseUint(f[9], 10, 32)
		if ok && err == nil {
			all = append(all, socket{address, uint32(inode)})
		}
	}
	return all, err
}

// parseSocketAddress reads "0100007F:1F90": words of the host's order in
// hexadecimal, and the port.
func parseSocketAddress(s string) (_ netip.AddrPort, ok bool) {
	words, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	address, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address, uint16(n)), ok
}

// owner is a process that has a socket.
type owner struct {
	pid  uint32
	name string
}

// ownersOf finds who has the sockets. Those that were known are not looked for
// again: to find one is to look through the descriptors of all processes.
func ownersOf(sockets []socket, known map[uint32]owner) map[uint32]owner {
	owners := map[uint32]owner{}
	missing := map[string]uint32{}
	for _, s := range sockets {
		if o, ok := known[s.inode]; ok {
			owners[s.inode] = o
		} else {
			missing["socket:["+strconv.FormatUint(uint64(s.inode), 10)+"]"] = s.inode
		}
	}
	if len(missing) > 0 {
		findOwners(missing, owners)
	}
	return owners
}

func findOwners(missing map[string]uint32, owners map[uint32]owner) {
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		pid, err := strconv.ParseUint(p.Name(), 10, 32)
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name()
		descriptors, _ := os.ReadDir(dir + "/fd")
		for _, d := range descriptors {
			link, _ := os.Readlink(dir + "/fd/" + d.Name())
			if inode, ok := missing[link]; ok {
				name, _ := os.ReadFile(dir + "/comm")
				owners[inode] = owner{uint32(pid), strings.TrimSuffix(string(name), "\n")}
				delete(missing, link)
			}
		}
		if len(missing) == 0 {
			return
		}
	}
}
