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

// device is the writable disk and the size of its file system. It stays open:
// to find it again is a good part of what a restored guest would do before it
// is ready.
type device struct {
	*os.File
	size  uint64 // of the file system, in bytes
	block uint64
}

func (s *System) openDevice() error {
	name, err := s.disk("disk")
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	blocks, block, err := ext4Size(f)
	if err != nil {
		f.Close()
		return err
	}
	s.device = &device{f, blocks * block, block}
	return nil
}

// GrowDisk lets the disk's file system fill its device. Nothing happens where
// it does already, or is known to have least bytes. A device that is smaller is
// waited for.
func (s *System) GrowDisk(least int64) error {
	if s.device != nil && least > 0 && s.device.holds(uint64(least)) {
		return nil
	}
	if s.device == nil {
		if err := s.openDevice(); err != nil {
			return err
		}
	}
	size, err := s.device.awaitSize(uint64(least))
	if err != nil {
		return err
	}
	want := size / s.device.block
	if s.device.size >= want*s.device.block {
		return nil
	}
	if err := ioctl(s.Disk, ioctlResizeFS, unsafe.Pointer(&want)); err != nil {
		return err
	}
	s.device.size = want * s.device.block
	time.AfterFunc(leaveTables, s.leaveTables)
	return nil
}

// holds says whether the file system has as many whole blocks.
func (d *device) holds(bytes uint64) bool { return d.size >= bytes/d.block*d.block }

// leaveTables is how long after a growth the kernel is told to leave the new
// inode tables alone, so that a first command comes before it.
const leaveTables = time.Second

// leaveTables keeps the kernel from writing zeroes over the inode tables of
// what was added, 14 MB for each GiB: they are holes of a file and read as
// zeroes already. To say so before the growth would have them zeroed at once.
func (s *System) leaveTables() {
	s.remount.Lock()
	defer s.remount.Unlock()
	if s.ending {
		return // and read-only
	}
	_ = unix.Mount("", procPath(s.Disk), "", unix.MS_REMOUNT, "noinit_itable")
}

// awaitSize is the size of the device in bytes, once it has at least so many.
func (d *device) awaitSize(least uint64) (size uint64, err error) {
	for deadline := time.Now().Add(growthDeadline); ; time.Sleep(time.Millisecond) {
		if err := ioctl(d.File, ioctlSize64, unsafe.Pointer(&size)); err != nil || size >= least {
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
