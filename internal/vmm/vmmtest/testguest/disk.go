package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk carries out "size SERIAL", "sum SERIAL", "read SERIAL OFFSET LENGTH",
// "write SERIAL OFFSET TEXT", "fill SERIAL OFFSET LENGTH" or "discard SERIAL
// OFFSET LENGTH".
func disk(request string) (string, error) {
	f := strings.Fields(request)
	if len(f) < 2 {
		return "", fmt.Errorf("bad request %q", request)
	}
	name, err := diskBySerial(f[1])
	if err != nil {
		return "", err
	}
	switch {
	case f[0] == "size":
		sectors, err := os.ReadFile("/sys/block/" + name + "/size")
		if err != nil {
			return "", err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(sectors)), 10, 64)
		return strconv.FormatInt(n*512, 10), err
	case f[0] == "read" && len(f) == 4:
		return readDisk("/dev/"+name, f[2], f[3])
	case f[0] == "write" && len(f) == 4:
		return "ok", writeDisk("/dev/"+name, f[2], []byte(f[3]))
	case f[0] == "sum":
		return sumDisk("/dev/" + name)
	case f[0] == "fill" && len(f) == 4:
		return "ok", fillDisk("/dev/"+name, f[2], f[3])
	case f[0] == "discard" && len(f) == 4:
		return "ok", discardDisk("/dev/"+name, f[2], f[3])
	}
	return "", fmt.Errorf("bad request %q", request)
}

func diskBySerial(serial string) (string, error) {
	if order, given := parameter("banger.disks"); given {
		if i := slices.Index(strings.Split(order, ","), serial); i >= 0 {
			return "vd" + string(rune('a'+i)), nil
		}
		return "", fmt.Errorf("no disk %q among %s", serial, order)
	}
	files, _ := filepath.Glob("/sys/block/*/serial")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if strings.TrimSpace(string(text)) == serial {
			return filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", fmt.Errorf("no disk with serial %q", serial)
}

func readDisk(dev, offset, length string) (string, error) {
	at, err := strconv.ParseInt(offset, 10, 64)
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(length)
	if err != nil {
		return "", err
	}
	f, err := os.Open(dev)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text := make([]byte, n)
	_, err = f.ReadAt(text, at)
	return string(text), err
}

// writeDisk returns once the disk has the bytes.
func writeDisk(dev, offset string, text []byte) error {
	at, err := strconv.ParseInt(offset, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(text, at); err != nil {
		return err
	}
	return f.Sync()
}

// fillDisk writes what no two calls have in common.
func fillDisk(dev, offset, length string) error {
	n, err := strconv.Atoi(length)
	if err != nil {
		return err
	}
	text := make([]byte, n)
	rand.Read(text) // never fails
	return writeDisk(dev, offset, text)
}

// discardDisk returns once the disk has forgotten the bytes.
func discardDisk(dev, offset, length string) error {
	at, err1 := strconv.ParseUint(offset, 10, 64)
	n, err2 := strconv.ParseUint(length, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	span := [2]uint64{at, n}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); e != 0 {
		return e
	}
	return f.Sync()
}

// sumDisk reads all of it.
func sumDisk(dev string) (string, error) {
	f, err := os.Open(dev)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// machine ends a real machine.
type machine struct{}

func (machine) poweroff() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }
func (machine) reset() error    { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }
