package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/kmod"
)

// vsockDriver is the module that makes a vsock of a virtio device.
const vsockDriver = "vmw_vsock_virtio_transport"

// HasVsock says whether a guest of this kernel can be reached by vsock: by a module that
// the initramfs loads, or by what is built in, which names itself in the kernel's own file.
func HasVsock(k banger.Kernel) (bool, error) {
	order, err := os.ReadFile(filepath.Join(k.Dir, earlyDir, "order"))
	if err != nil {
		return false, banger.Wrap(err, "cannot see what the kernel %s loads", k.Name)
	}
	for name := range strings.Lines(string(order)) {
		if _, file, _ := strings.Cut(strings.TrimSpace(name), "-"); kmod.Name(file) == vsockDriver {
			return true, nil
		}
	}
	f, err := os.Open(k.VmlinuxPath)
	if err != nil {
		return false, banger.Wrap(err, "cannot look into the kernel %s", k.Name)
	}
	defer f.Close()
	return mentions(f, vsockDriver)
}

// mentions says whether a file has a word.
func mentions(f io.Reader, word string) (bool, error) {
	buf, kept := make([]byte, 1<<20), 0
	for {
		n, err := f.Read(buf[kept:])
		text := buf[:kept+n]
		if bytes.Contains(text, []byte(word)) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(buf, text[max(0, len(text)-len(word)):])
	}
}
