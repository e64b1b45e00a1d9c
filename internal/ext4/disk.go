package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"

	"golang.org/x/sys/unix"
)

// MakeEmpty writes a sparse, empty, writable ext4 file of that size at path,
// atomically. It takes 3 MB of real blocks and can be grown online to the
// largest disk.
func MakeEmpty(ctx context.Context, path string, size int64) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-ext4-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := mkfs(ctx, f.Name()); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return artifact.Rename(f.Name(), path)
}

// features are spelled out, so that no host's mke2fs.conf decides them:
// every kernel since 4.4 can mount these, and with 64-byte group descriptors
// and reserved room for them the file system grows while it is mounted.
const features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg," +
	"sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

func mkfs(ctx context.Context, path string) error {
	name, err := lookTool("mkfs.ext4")
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot make a disk: mkfs.ext4 is not installed").
			Hint("sudo apt install e2fsprogs")
	}
	// With discard mke2fs knows the file reads as zeros and marks the inode
	// tables as zeroed: no background writing in the guest, no blocks here.
	cmd := exec.CommandContext(ctx, name, "-F", "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384",
		"-m", "0", "-L", "banger", "-O", features, "-J", "size=16",
		"-E", "discard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0,resize=33554432", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MKE2FS_CONFIG=/dev/null")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return banger.Errorf(banger.Internal, "cannot make a disk: mkfs.ext4: %s", strings.TrimSpace(stderr.String()+" "+err.Error()))
	}
	return nil
}

// lookTool also looks where distributions put root's tools, which an ordinary
// user may not have in PATH.
func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// Copy makes dst, which must not exist, a copy of the file src: a shared
// copy where the file system can (reflink), else of the data only, so that
// holes stay holes. A dst that could not be completed is removed.
func Copy(ctx context.Context, src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			os.Remove(dst)
		}
	}()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	return eachData(in, info.Size(), func(start, end int64) error {
		return copyRange(ctx, out, in, start, end)
	})
}

// eachData calls visit for the parts of f that are not holes.
func eachData(f *os.File, size int64, visit func(start, end int64) error) error {
	for end := int64(0); end < size; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err == nil {
			end, err = f.Seek(start, unix.SEEK_HOLE)
		}
		if err == nil {
			err = visit(start, end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyChunk bounds how long a copy goes on after its context has ended.
const copyChunk = 64 << 20

func copyRange(ctx context.Context, out, in *os.File, start, end int64) error {
	for start < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := start, start
		n, err := unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, int(min(end-start, copyChunk)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n > 0:
			start += int64(n)
			continue
		case err == nil, errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
			return copyPlain(ctx, out, in, start, end)
		}
		return err
	}
	return nil
}

// copyPlain is for file systems that cannot copy_file_range.
func copyPlain(ctx context.Context, out, in *os.File, start, end int64) error {
	section := io.NewSectionReader(in, start, end-start)
	_, err := io.Copy(io.NewOffsetWriter(out, start), artifact.Reader(ctx, section))
	return err
}

// Grow makes the file at path at least size bytes long. The file system in it
// stays as it is until the guest resizes it. A file is never made shorter.
//
// The guest must mount it with noinit_itable: the kernel would otherwise write
// zeros over the inode tables of the grown part, 112 MB for 8 GiB, which are
// holes that read as zeros already.
func Grow(path string, size int64) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() >= size {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return fmt.Errorf("cannot grow a disk: %w", err)
	}
	return nil
}
