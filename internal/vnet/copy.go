package vnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// chunk takes the longest datagram.
const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// copyEndpoint hands on what arrives at an endpoint of the stack until its end
// (nil) or an error. A chunk of memory is held only while there is data.
func copyEndpoint(ctx context.Context, ep tcpip.Endpoint, queue *waiter.Queue, write func([]byte) error) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	for {
		err := drainEndpoint(ep, write)
		var fault stackFault
		if !errors.As(err, &fault) {
			return err
		}
		switch fault.of.(type) {
		case *tcpip.ErrClosedForReceive:
			return nil
		case *tcpip.ErrWouldBlock:
		default:
			return err
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func drainEndpoint(ep tcpip.Endpoint, write func([]byte) error) error {
	buffer := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buffer)
	for {
		into := tcpip.SliceWriter(buffer[:])
		result, fault := ep.Read(&into, tcpip.ReadOptions{})
		if fault != nil {
			return stackError(fault)
		}
		if err := write(buffer[:result.Count]); err != nil {
			return err
		}
	}
}

// copyFrom hands on what arrives from the world, in the same way. A stream ends
// with an empty read, which of datagrams is an empty one.
func copyFrom(c net.Conn, stream bool, write func([]byte) error) error {
	for {
		buffer, n, err := readReady(c)
		if err != nil || stream && n == 0 {
			chunks.Put(buffer)
			return err
		}
		err = write(buffer[:n])
		chunks.Put(buffer)
		if err != nil {
			return err
		}
	}
}

// readReady reads once and takes a chunk only when there is something to read, if
// the connection is one of the system's.
func readReady(c net.Conn) (buffer *[chunk]byte, n int, err error) {
	system, ok := c.(syscall.Conn)
	if !ok {
		buffer = chunks.Get().(*[chunk]byte)
		if n, err = c.Read(buffer[:]); errors.Is(err, io.EOF) {
			n, err = 0, nil
		}
		return buffer, n, err
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return new([chunk]byte), 0, err
	}
	var fault error
	err = raw.Read(func(fd uintptr) bool {
		buffer = chunks.Get().(*[chunk]byte)
		for n, fault = unix.Read(int(fd), buffer[:]); fault == unix.EINTR; {
			n, fault = unix.Read(int(fd), buffer[:])
		}
		if fault == unix.EAGAIN {
			chunks.Put(buffer)
			return false
		}
		return true
	})
	if err != nil {
		return new([chunk]byte), 0, err
	}
	return buffer, max(n, 0), fault
}
