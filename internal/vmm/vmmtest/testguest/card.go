package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// testKind marks the frames of the suite, among those of the kernel.
const testKind = 0x88b5

// openCard brings the network card up and opens it for frames of the suite.
func openCard() (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return -1, err
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 && len(i.HardwareAddr) == 6 {
			return openInterface(i)
		}
	}
	return -1, fmt.Errorf("there is no network card")
}

func openInterface(i net.Interface) (int, error) {
	kind := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, testKind)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, kind)
	if err != nil {
		return -1, err
	}
	up, err := unix.NewIfreq(i.Name)
	if err != nil {
		return -1, err
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(kind), Ifindex: i.Index})
}

// useCard carries out "send TO FROM SIZE", "receive" or "flood COUNT TO FROM".
// What is received is described: from whom, how long, and its sum.
func (s *session) useCard(request string) (string, error) {
	card, err := s.card()
	if err != nil {
		return "", err
	}
	var to, from string
	var n int
	if _, err := fmt.Sscanf(request, "send %s %s %d", &to, &from, &n); err == nil {
		frame, err := testFrame(to, from, n)
		if err == nil {
			_, err = unix.Write(card, frame)
		}
		return "ok", err
	}
	if _, err := fmt.Sscanf(request, "flood %d %s %s", &n, &to, &from); err == nil {
		frame, err := testFrame(to, from, 1500)
		if err == nil {
			go flood(card, frame, n)
		}
		return "ok", err
	}
	buffer := make([]byte, 1<<17)
	if n, err = unix.Read(card, buffer); err != nil {
		return "", err
	}
	return describeFrame(buffer[:n]), nil
}

func testFrame(to, from string, size int) ([]byte, error) {
	dst, err1 := net.ParseMAC(to)
	src, err2 := net.ParseMAC(from)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("bad addresses %s and %s", to, from)
	}
	frame := binary.BigEndian.AppendUint16(append(dst, src...), testKind)
	return append(frame, bytes.Repeat([]byte{0xa5}, size)...), nil
}

func describeFrame(frame []byte) string {
	if len(frame) < 14 {
		return fmt.Sprintf("%x", frame)
	}
	return fmt.Sprintf("%s %d %v", net.HardwareAddr(frame[6:12]), len(frame)-14,
		bytes.Count(frame[14:], []byte{0xa5}) == len(frame)-14)
}

// flood does not mind what the card cannot take.
func flood(card int, frame []byte, count int) {
	for range count {
		_ = unix.Sendto(card, frame, unix.MSG_DONTWAIT, nil)
	}
}
