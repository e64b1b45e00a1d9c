package boot

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ioctlResizeFS = 0x40086610 // EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64)
	ioctlSize64   = 0x80081272 // BLKGETSIZE64
)

// GrowDisk lets the disk's file system fill its device. Nothing happens where
// it does already.
func (s *System) GrowDisk() error {
	name, err := s.disk("disk")
	if err != nil {
		return err
	}
	dev, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dev.Close()
	var size uint64
	if err := ioctl(dev, ioctlSize64, unsafe.Pointer(&size)); err != nil {
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
