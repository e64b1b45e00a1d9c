package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/artifact"
)

// writeKernel copies the kernel at path into dir, with the ELF kernel taken
// out of a bzImage, and gives its release.
func writeKernel(ctx context.Context, path, dir string) (release string, err error) {
	in, size, err := openKernel(path)
	if err == nil {
		defer in.Close()
		if isELF(in) {
			release, err = writeELF(ctx, in, size, dir)
		} else {
			release, err = writeBzImage(ctx, in, size, dir)
		}
		if hostsOwn(err) {
			return "", err
		}
	}
	if err != nil {
		return "", banger.Errorf(banger.BadRequest, "cannot use %s as a kernel: %w", path, err)
	}
	return release, nil
}

func openKernel(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("it is no regular file")
	}
	if info.Size() > maxVmlinux {
		return nil, 0, fmt.Errorf("it has %d bytes, which no kernel has", info.Size())
	}
	f, err := os.Open(path)
	return f, info.Size(), err
}

func isELF(r io.ReaderAt) bool {
	var magic [4]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == elf.ELFMAG
}

func writeELF(ctx context.Context, in *os.File, size int64, dir string) (release string, err error) {
	if err := checkELF(in); err != nil {
		return "", err
	}
	if release, err = elfRelease(in, size); err != nil {
		return "", err
	}
	return release, writeAll(filepath.Join(dir, vmlinuxFile), artifact.Reader(ctx, in))
}

func writeBzImage(ctx context.Context, in *os.File, size int64, dir string) (release string, err error) {
	image, err := parseBzImage(in, size)
	if err != nil {
		return "", err
	}
	if release, err = image.release(); err != nil {
		return "", err
	}
	vmlinux, err := os.OpenFile(filepath.Join(dir, vmlinuxFile), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, vmlinux.Close()) }()
	if err := image.vmlinux(ctx, vmlinux); err != nil {
		return "", err
	}
	if err := checkELF(vmlinux); err != nil {
		return "", err
	}
	return release, writeAll(filepath.Join(dir, vmlinuzFile), artifact.Reader(ctx, in))
}
