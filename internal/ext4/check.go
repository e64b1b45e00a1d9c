package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Of the superblock, which is 1024 bytes into a file system.
const (
	superOffset  = 1024
	superMagic   = 0xEF53
	stateClean   = 1
	stateErrors  = 2
	incompatDirt = 0x4  // the journal is not replayed
	incompatExt4 = 0x40 // extents
	incompat64   = 0x80
)

// Check says why the file at path is no ext4 file system that can be mounted
// as it is, without its journal: by name where it is something else.
func Check(path string) error {
	// To open a pipe would wait for who writes into it.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	head := make([]byte, 128<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	return checkSuper(head[:n], info.Size())
}

func checkSuper(head []byte, size int64) error {
	if len(head) < superOffset+1024 || binary.LittleEndian.Uint16(head[superOffset+0x38:]) != superMagic {
		return fmt.Errorf("it is %s, not an ext4 file system", whatElse(head))
	}
	super := head[superOffset:]
	state, incompat := binary.LittleEndian.Uint16(super[0x3a:]), binary.LittleEndian.Uint32(super[0x60:])
	blocks := int64(binary.LittleEndian.Uint32(super[0x4:]))
	if incompat&incompat64 != 0 {
		blocks |= int64(binary.LittleEndian.Uint32(super[0x150:])) << 32
	}
	shift := binary.LittleEndian.Uint32(super[0x18:])
	switch {
	case shift > 6 || blocks <= 0:
		return errors.New("its superblock is damaged")
	case blocks > size>>(10+shift):
		return fmt.Errorf("it is cut off: the file system has %d blocks of %d bytes, and the file %d bytes", blocks, 1024<<shift, size)
	case incompat&incompatExt4 == 0:
		return errors.New("it is an ext2 or ext3 file system, not ext4")
	case incompat&incompatDirt != 0, state&stateClean == 0:
		return errors.New("it is a dirty ext4 file system: it was not unmounted")
	case state&stateErrors != 0:
		return errors.New("it is an ext4 file system with errors")
	}
	return nil
}

// signatures are what other formats begin with.
var signatures = []struct {
	at   int
	sign string
	name string
}{
	{0, "QFI\xfb", "a qcow2 image"}, {0, "KDMV", "a VMDK image"}, {0, "conectix", "a VHD image"}, {0, "vhdxfile", "a VHDX image"},
	{0, "hsqs", "a squashfs file system"}, {0, "XFSB", "an XFS file system"}, {1024, "\xe2\xe1\xf5\xe0", "an erofs file system"},
	{1024, "\x10\x20\xf5\xf2", "an F2FS file system"}, {0x10040, "_BHRfS_M", "a btrfs file system"}, {0x8001, "CD001", "an ISO 9660 image"},
	{512, "EFI PART", "a disk with partitions"}, {510, "\x55\xaa", "a disk with partitions"}, {257, "ustar", "a tar archive"},
	{0, "\x1f\x8b", "gzip data"}, {0, "\x28\xb5\x2f\xfd", "zstd data"}, {0, "\xfd7zXZ", "xz data"}, {0, "BZh", "bzip2 data"}, {0, "LUKS", "an encrypted disk"},
}

func whatElse(head []byte) string {
	for _, s := range signatures {
		if len(head) >= s.at && bytes.HasPrefix(head[s.at:], []byte(s.sign)) {
			return s.name
		}
	}
	if len(head) == 0 {
		return "empty"
	}
	return "something else"
}
