package standin

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// mapMemory maps a saved memory so that nothing that is written comes there.
func mapMemory(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != size {
		return nil, errors.Join(err, errors.New("it has another size than the machine's memory"))
	}
	return unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
}

// writeMemory writes all memory, or what of it is in the host's at all.
func writeMemory(path string, ram []byte, diff bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != int64(len(ram)) {
		if err := errors.Join(f.Truncate(0), f.Truncate(int64(len(ram)))); err != nil {
			return err
		}
	}
	var present []byte
	if diff {
		if present, err = inCore(ram); err != nil {
			return err
		}
	}
	for page := range len(ram) / pageSize {
		if present != nil && present[page]&1 == 0 {
			continue
		}
		at := page * pageSize
		if _, err := f.WriteAt(ram[at:at+pageSize], int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// inCore says of each page whether it is in memory.
func inCore(ram []byte) ([]byte, error) {
	pages := make([]byte, len(ram)/pageSize)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&ram[0])), uintptr(len(ram)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return nil, errno
	}
	return pages, nil
}
