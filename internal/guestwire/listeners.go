package guestwire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// Listener is a TCP socket of the guest that listens.
type Listener struct {
	Address netip.AddrPort // an unspecified one listens on all
	PID     uint32         // of a process that has it; 0 if none was found
	Process string         // what that is called
}

// maxListeners bounds what a guest may tell.
const maxListeners = 4096

// WriteListeners tells of listeners, of as many as may be told.
func WriteListeners(w io.Writer, all []Listener) error {
	all = all[:min(len(all), maxListeners)]
	b := make([]byte, 4, 256)
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	for _, l := range all {
		b = appendString(b, string(l.Address.Addr().AsSlice()))
		b = binary.BigEndian.AppendUint16(b, l.Address.Port())
		b = appendString(binary.BigEndian.AppendUint32(b, l.PID), l.Process)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err := w.Write(b)
	return err
}

// ReadListeners reads one telling.
func ReadListeners(r io.Reader) ([]Listener, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes of listeners", ErrProtocol, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return parseListeners(b)
}

func parseListeners(b []byte) ([]Listener, error) {
	d := decoder{b: b}
	n := d.uint32()
	if n > maxListeners {
		d.bad = true
	}
	var all []Listener
	for i := uint32(0); i < n && !d.bad; i++ {
		address, ok := netip.AddrFromSlice([]byte(d.string()))
		d.bad = d.bad || !ok
		port := d.uint16()
		all = append(all, Listener{netip.AddrPortFrom(address, port), d.uint32(), d.string()})
	}
	if d.bad {
		return nil, fmt.Errorf("%w: bad list of listeners", ErrProtocol)
	}
	return all, nil
}
