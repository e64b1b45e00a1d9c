package layers

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"banger"
)

// The shape of our layers, as the public specification of qcow2 has it:
// version 3, clusters of 64 KiB, refcounts of 16 bits. The first four clusters
// hold the header, the refcount table, its first block, and the L1 table. That
// fills its cluster, so that a layer grows without a table being moved.
const (
	clusterBits  = 16
	clusterSize  = 1 << clusterBits
	headerLength = 104
	l1Entries    = clusterSize / 8
	maxSize      = l1Entries * (clusterSize / 8) * clusterSize // 4 TiB
)

const (
	refcountTableAt = (iota + 1) * clusterSize
	refcountsAt
	l1At
	emptyLength
)

// sizeAt is where the header has the disk's size.
const sizeAt = 24

// CreateOverlay makes an empty layer of size bytes, with mode 0600. A file that
// is there already is left alone. It names no file below it: who opens a layer
// says what that is. It takes three blocks of the file system.
//
// It gets its name once it is whole and synced: half of one would be taken for
// the top of a disk, which then could not be used, if whoever makes it is killed
// or the power is cut. What is flushed to it later makes the name last too.
func CreateOverlay(path string, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	made := filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	os.Remove(made) // of one who was killed
	f, err := os.OpenFile(made, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return banger.Wrap(err, "cannot make a disk layer")
	}
	defer os.Remove(made)
	err = errors.Join(writeEmpty(f, size), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(made, path)
	}
	return banger.Wrap(err, "cannot make a disk layer")
}

func checkSize(size int64) error {
	if size <= 0 || size > maxSize || size%512 != 0 {
		return banger.Errorf(banger.BadRequest, "cannot make a disk layer of %d bytes", size)
	}
	return nil
}

func writeEmpty(f *os.File, size int64) error {
	be := binary.BigEndian
	header := []byte("QFI\xfb")
	header = be.AppendUint32(header, 3)
	header = be.AppendUint64(header, 0) // no name of a file below
	header = be.AppendUint32(header, 0)
	header = be.AppendUint32(header, clusterBits)
	header = be.AppendUint64(header, uint64(size))
	header = be.AppendUint32(header, 0) // not encrypted
	header = be.AppendUint32(header, l1Entries)
	header = be.AppendUint64(header, l1At)
	header = be.AppendUint64(header, refcountTableAt)
	header = be.AppendUint32(header, 1)
	header = be.AppendUint32(header, 0) // no snapshots inside
	header = be.AppendUint64(header, 0)
	header = be.AppendUint64(header, 0) // features: incompatible,
	header = be.AppendUint64(header, 0) // compatible,
	header = be.AppendUint64(header, 0) // autoclear
	header = be.AppendUint32(header, 4) // refcounts have 1<<4 bits
	header = be.AppendUint32(header, headerLength)
	var refcounts []byte
	for range emptyLength / clusterSize {
		refcounts = be.AppendUint16(refcounts, 1)
	}
	_, err1 := f.WriteAt(header, 0)
	_, err2 := f.WriteAt(be.AppendUint64(nil, refcountsAt), refcountTableAt)
	_, err3 := f.WriteAt(refcounts, refcountsAt)
	return errors.Join(err1, err2, err3, f.Truncate(emptyLength))
}

// overlaySize is the size in a layer's header.
func overlaySize(path string) (int64, error) {
	f, err := openLayer(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size(), nil
}

// growOverlay changes the size in a layer's header, in one write. What is new
// reads as zeroes, as all does that no layer has.
func growOverlay(path string, size int64) error {
	present, err := overlaySize(path)
	if err != nil || present >= size {
		return err
	}
	if err := checkSize(size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(size)), sizeAt)
	return errors.Join(err, f.Close())
}
