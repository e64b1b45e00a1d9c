package boot

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ioctlResizeFS = 0x40086610 // EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64)
	ioctlSize64   = 0x80081272 // BLKGETSIZE64
)

// growthDeadline is how long a disk may take to be seen larger: the kernel
// looks again when it is told to, on a thread of its own.
const growthDeadline = 2 * time.Second

// GrowDisk lets the disk's file system fill its device. Nothing happens where
// it does already. A device that is smaller than least bytes is waited for.
func (s *System) GrowDisk(least int64) error {
	name, err := s.disk("disk")
	if err != nil {
		return err
	}
	dev, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dev.Close()
	size, err := deviceSize(dev, uint64(least))
	if err != nil {
		return err
	}
	have, block, err := ext4Size(dev)
	if err != nil {
		return err
	}
	want := size / block
	if have >= want {
		return nil
	}
	return ioctl(s.Disk, ioctlResizeFS, unsafe.Pointer(&want))
}

// deviceSize is the size of a device in bytes, once it has that many.
func deviceSize(dev *os.File, least uint64) (size uint64, err error) {
	for deadline := time.Now().Add(growthDeadline); ; time.Sleep(time.Millisecond) {
		if err := ioctl(dev, ioctlSize64, unsafe.Pointer(&size)); err != nil || size >= least {
			return size, err
		}
		if time.Now().After(deadline) {
			return size, fmt.Errorf("it has %d bytes, not %d", size, least)
		}
	}
}

// ext4Size reads the number and size of a file system's blocks.
func ext4Size(dev *os.File) (blocks, size uint64, err error) {
	var super [1024]byte
	if _, err := dev.ReadAt(super[:], 1024); err != nil {
		return 0, 0, err
	}
	low, high := binary.LittleEndian.Uint32(super[0x04:]), binary.LittleEndian.Uint32(super[0x150:])
	shift := binary.LittleEndian.Uint32(super[0x18:])
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 || shift > 6 {
		return 0, 0, unix.EUCLEAN
	}
	return uint64(high)<<32 | uint64(low), 1024 << shift, nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
