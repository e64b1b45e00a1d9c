package guestwire

import (
	"encoding/binary"
	"fmt"
)

// Listen asks for a socket inside the guest that the host answers.
type Listen struct {
	Network string // "tcp" or "unix"
	Address string // HOST:PORT, where port 0 picks one; or a path, where "" is one of its own
	User    string // who may connect to a unix socket, besides root; "" is root
	UID     uint32 // for a User the image lacks, as in Exec
}

// Append encodes the request.
func (l Listen) Append(b []byte) []byte {
	b = appendString(appendString(appendString(b, l.Network), l.Address), l.User)
	return binary.BigEndian.AppendUint32(b, l.UID)
}

// ParseListen decodes the request. Bytes after it are a newer minor's.
func ParseListen(b []byte) (Listen, error) {
	d := decoder{b: b}
	l := Listen{Network: d.string(), Address: d.string(), User: d.string(), UID: d.uint32()}
	if d.bad {
		return Listen{}, fmt.Errorf("%w: bad listen request", ErrProtocol)
	}
	return l, nil
}

// AppendNumber encodes the number of a connection that waits.
func AppendNumber(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

// ParseNumber decodes it.
func ParseNumber(b []byte) (uint32, error) {
	d := decoder{b: b}
	n := d.uint32()
	if d.bad {
		return 0, fmt.Errorf("%w: bad number of a connection", ErrProtocol)
	}
	return n, nil
}
