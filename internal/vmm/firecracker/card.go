package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// A network card's other end is a TAP: nothing else will do for Firecracker. It is made in a
// network namespace that only Firecracker is in, and joined to us by a packet socket that
// was made there too. Nobody may enter the namespace afterwards, so both are made by a
// process that then becomes Firecracker: this program, begun as CardProgram.

// CardProgram is the first argument of this program when it is to make a card:
//
//	SELF vmm-card ORDER PROGRAM ARGS…
//
// Without a PROGRAM it is a trial: the card goes with the process.
const CardProgram = "vmm-card"

// order is what such a process is to do, as JSON.
type order struct {
	MTU    int          `json:"mtu"`
	Socket int          `json:"socket"` // the descriptor of one to whoever started it
	Access child.Access `json:"access"` // what the program may open
	Open   []int        `json:"open"`   // and which of its descriptors again
}

// cardRights are what it takes to make a card in a namespace of one's own.
var cardRights = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}

// What such a process says when it has made a card, according to whether Landlock is in
// force.
const (
	madeConfined = "card, confined"
	made         = "card"
)

// startWithCard starts what spec says by way of CardProgram. With the rights to make the
// card it has no others, and what it becomes has none.
func startWithCard(spec child.Spec, cfg vmm.Config, h *home) (*child.Child, *net.UnixConn, error) {
	near, far, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer far.Close()
	o := order{MTU: cfg.NIC.MTU, Socket: len(spec.Files), Access: *access(cfg, h)}
	for fd := fdMemory; fd < len(spec.Files); fd++ {
		o.Open = append(o.Open, fd)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	spec.Args = slices.Concat([]string{CardProgram, string(text), spec.Path}, spec.Args)
	spec.Path = "/proc/self/exe"
	spec.Files = append(slices.Clip(spec.Files), far)
	spec.Ambient = cardRights
	c, err := child.Start(spec)
	if err != nil {
		_ = near.Close()
		return nil, nil, banger.Errorf(banger.Unavailable,
			"cannot make a network namespace for the network card: %w", err).
			Hint(useQEMU)
	}
	return c, near, nil
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close() // FileConn has its own
	conn, err := net.FileConn(near)
	if err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), far, nil
}

// plugIn waits for the packet socket and makes the cable's end of it.
func (m *machine) plugIn(ctx context.Context) error {
	if m.plug == nil {
		return nil
	}
	defer m.plug.Close()
	stop := context.AfterFunc(ctx, func() { _ = m.plug.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var word [512]byte
	var rights [64]byte
	n, nr, _, _, err := m.plug.ReadMsgUnix(word[:], rights[:])
	if err != nil || n == 0 {
		// It has ended, and its last line says why.
		return fmt.Errorf("%w: no network card was made", errNoAnswer)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:nr])
	if err != nil || len(messages) != 1 {
		return banger.Errorf(banger.Unavailable, "cannot make a network card: %s", word[:n]).Hint(useQEMU)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return banger.Errorf(banger.Internal, "cannot make a network card: %d descriptors came with it, not one", len(fds))
	}
	m.confined = string(word[:n]) == madeConfined
	return m.cable.plug(os.NewFile(uintptr(fds[0]), "cable"))
}

// Card is CardProgram: it makes the card and becomes the program, or returns why not. A trial that
// succeeds returns nil.
func Card(args []string) error {
	var o order
	if len(args) < 1 || json.Unmarshal([]byte(args[0]), &o) != nil {
		return errors.New("usage: " + CardProgram + " ORDER PROGRAM ARGS…")
	}
	runtime.LockOSThread() // what is confined is a thread, and what it becomes
	unix.CloseOnExec(o.Socket)
	parent := os.Getppid()
	socket, err := makeCard(o.MTU)
	if len(args) == 1 {
		return err
	}
	if err == nil {
		err = o.confine(parent, socket)
	}
	if err != nil {
		_ = unix.Sendto(o.Socket, []byte(err.Error()), 0, nil)
		return err
	}
	err = unix.Exec(args[1], args[1:], nil)
	runtime.KeepAlive(o.Access.Open) // what the collector would close is the program's
	return fmt.Errorf("cannot run %s: %w", args[1], err)
}

// confine leaves this process no more than what it becomes needs, and hands the socket over.
func (o *order) confine(parent, socket int) error {
	for _, fd := range o.Open {
		o.Access.Open = append(o.Access.Open, os.NewFile(uintptr(fd), "disk"))
	}
	confined, err := o.Access.Confine()
	if err != nil {
		return err
	}
	word := made
	if confined {
		word = madeConfined
	}
	if err := unix.Sendmsg(o.Socket, []byte(word), unix.UnixRights(socket), nil, 0); err != nil {
		return fmt.Errorf("cannot hand the card's socket over: %w", err)
	}
	return giveUpRights(parent)
}

// giveUpRights leaves nothing to what this process becomes but to open the TAP, which is its
// user's. That the parent is still there is looked at once more: the kernel may forget
// what was to happen at its death where rights change.
func giveUpRights(parent int) error {
	none := [2]unix.CapUserData{}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := errors.Join(
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
		unix.Capset(&head, &none[0]),
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0),
	)
	if err == nil && os.Getppid() != parent {
		err = errors.New("the parent has ended")
	}
	return err
}

// makeCard makes the TAP, and gives a socket on which its frames are.
func makeCard(mtu int) (int, error) {
	if err := makeTAP(); err != nil {
		return -1, err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot make a packet socket: %w", err)
	}
	if err := bringUp(socket, mtu); err != nil {
		return -1, err
	}
	return socket, openPackets(socket)
}

// makeTAP makes the TAP so that it stays, for Firecracker to attach itself to.
func makeTAP() error {
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open /dev/net/tun: %w", err)
	}
	defer unix.Close(tun)
	req, err := unix.NewIfreq(cardName)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("cannot make a TAP: %w", err)
	}
	err = errors.Join(unix.IoctlSetInt(tun, unix.TUNSETOWNER, os.Geteuid()), unix.IoctlSetInt(tun, unix.TUNSETPERSIST, 1))
	if err != nil {
		return fmt.Errorf("cannot keep the TAP: %w", err)
	}
	return nil
}

// bringUp sets the TAP up, without an address: what the kernel had to say there of itself
// would only disturb the guest.
func bringUp(socket, mtu int) error {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+cardName+"/disable_ipv6", []byte("1"), 0)
	req, err := unix.NewIfreq(cardName)
	if err != nil {
		return err
	}
	req.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFMTU, req); err != nil {
		return fmt.Errorf("cannot set the TAP's MTU to %d: %w", mtu, err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("cannot bring the TAP up: %w", err)
	}
	return nil
}

// roomForFrames is how many bytes of frames wait to be taken. The host may allow less.
const roomForFrames = 4 << 20

// openPackets has the socket take all frames of the TAP, but for those it sent itself, with
// what the guest left to its card to do: checksums, above all. What it sends goes by no queue of the
// kernel's: a TAP has none until the kernel has noticed, some time later, that a VMM is at it, and till
// then frames to the guest would be lost, as those are that a restored guest waits for.
func openPackets(socket int) error {
	tap, err := net.InterfaceByName(cardName)
	if err != nil {
		return err
	}
	if unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, roomForFrames) != nil {
		_ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, roomForFrames)
	}
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: tap.Index}),
	)
	if err != nil {
		return fmt.Errorf("cannot take the TAP's frames: %w", err)
	}
	return nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }
