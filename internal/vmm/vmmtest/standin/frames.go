package standin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

// testKind marks the frames of the conformance suite.
const testKind = 0x88b5

// useCard carries out "send TO FROM SIZE" or "flood COUNT TO FROM".
func (g *guest) useCard(request string) (string, error) {
	if len(g.machine.about.Cards) == 0 {
		return "", errors.New("there is no network card")
	}
	c := g.machine.about.Cards[0]
	var to, from string
	var n int
	if _, err := fmt.Sscanf(request, "send %s %s %d", &to, &from, &n); err == nil {
		return "ok", c.send(testFrame(to, from, n))
	}
	if _, err := fmt.Sscanf(request, "flood %d %s %s", &n, &to, &from); err != nil {
		return "", fmt.Errorf("bad request %q", request)
	}
	go func() {
		for range n {
			_ = c.send(testFrame(to, from, 1500))
		}
	}()
	return "ok", nil
}

func testFrame(to, from string, size int) []byte {
	dst, _ := net.ParseMAC(to)
	src, _ := net.ParseMAC(from)
	frame := binary.BigEndian.AppendUint16(append(dst, src...), testKind)
	return append(frame, bytes.Repeat([]byte{0xa5}, size)...)
}

// describe says from whom a frame is, how long, and whether it is whole.
func describe(frame []byte) string {
	if len(frame) < 14 {
		return fmt.Sprintf("%x", frame)
	}
	return fmt.Sprintf("%s %d %v", net.HardwareAddr(frame[6:12]), len(frame)-14, bytes.Count(frame[14:], []byte{0xa5}) == len(frame)-14)
}
