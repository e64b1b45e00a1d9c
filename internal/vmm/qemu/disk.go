package qemu

import (
	"fmt"
	"os"

	"banger"
	"banger/internal/vmm"
)

// diskFile is one file of a machine's disk. QEMU has a read-only descriptor of
// it, and one more that can write if the file takes the disk's writes: it reads
// with the first while a saved machine comes in, and again once the file was
// frozen.
type diskFile struct {
	disk  vmm.Disk
	level int // 0 is the raw file, above it are layers
	fd    int // QEMU's number of the first descriptor, and of their set
}

// diskFiles are the files of all disks, each disk's lowest first, when fd is
// QEMU's first descriptor of them.
func diskFiles(disks []vmm.Disk, fd int) (files []diskFile) {
	for _, d := range disks {
		for level := range len(d.Layers) + 1 {
			f := diskFile{d, level, fd}
			files = append(files, f)
			fd++
			if f.takesWrites() {
				fd++
			}
		}
	}
	return files
}

func (f diskFile) onTop() bool       { return f.level == len(f.disk.Layers) }
func (f diskFile) takesWrites() bool { return f.onTop() && !f.disk.ReadOnly }

func (f diskFile) path() string {
	if f.level == 0 {
		return f.disk.Path
	}
	return f.disk.Layers[f.level-1]
}

// node is the block layer's name for a disk as it is at this level. No serial
// has a dot.
func node(serial string, level int) string {
	if level == 0 {
		return "disk-" + serial
	}
	return fmt.Sprintf("disk-%s.%d", serial, level)
}

// writer marks, among the descriptors of a set, the one that can write.
const writer = "writer"

// openDisks opens the files of all disks, in the order of diskFiles, with no
// more rights than the guest is to have: QEMU cannot write what it holds
// read-only.
func (w *wires) openDisks(cfg vmm.Config, fd int) error {
	w.tops = map[string]top{}
	for _, f := range diskFiles(cfg.Disks, fd) {
		if err := w.openDisk(cfg.At(f.path()), f.disk.Serial, os.O_RDONLY); err != nil {
			return err
		}
		if f.takesWrites() {
			if err := w.openDisk(cfg.At(f.path()), f.disk.Serial, os.O_RDWR); err != nil {
				return err
			}
		}
		if f.onTop() {
			w.tops[f.disk.Serial] = top{path: f.path(), level: f.level, set: f.fd, readOnly: f.disk.ReadOnly}
		}
	}
	return nil
}

func (w *wires) openDisk(path, serial string, flags int) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot open the disk %s: %w", serial, err)
	}
	w.far = append(w.far, f)
	return nil
}

// diskArgs gives QEMU what openDisks opened.
func diskArgs(disks []vmm.Disk, fd int, locking string) (args []string) {
	for _, f := range diskFiles(disks, fd) {
		args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d", f.fd, f.fd))
		if f.takesWrites() {
			args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d,opaque=%s", f.fd+1, f.fd, writer))
		}
		block := blockNode(f.disk.Serial, f.level, f.fd, !f.takesWrites(), locking)
		if f.level > 0 {
			block["backing"] = node(f.disk.Serial, f.level-1)
		}
		args = append(args, "-blockdev", encode(block))
		if f.onTop() {
			args = append(args, "-device", encode(object{
				"driver": "virtio-blk-device", "drive": node(f.disk.Serial, f.level), "serial": f.disk.Serial,
			}))
		}
	}
	return args
}

// blockNode describes a file of a disk to QEMU, without what is below it.
// Flushes of the guest reach the file (writeback honours them), discards punch
// holes in it. That the file is read-only it takes from the node above it,
// which a freeze changes.
func blockNode(serial string, level, set int, readOnly bool, locking string) object {
	block := object{
		"driver": "raw", "node-name": node(serial, level), "read-only": readOnly, "discard": "unmap",
		"file": object{
			"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", set),
			"discard": "unmap", "aio": "threads", "locking": locking,
		},
	}
	if level > 0 {
		block["driver"] = "qcow2"
		block["backing"] = nil
	}
	return block
}
