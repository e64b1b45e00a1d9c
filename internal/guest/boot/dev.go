package boot

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountRun mounts a fresh /run.
func mountRun() error {
	if err := mountNew("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	return errors.Join(mkdirMode("/run/lock", 0o777|os.ModeSticky), mkdirMode("/run/user", 0o755))
}

// mkdirMode makes a directory with a mode that no umask touches.
func mkdirMode(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// makeNodes makes what devtmpfs has only once a module is loaded: opening the
// node is what loads it. The rest is as udev would leave it.
func makeNodes() error {
	var errs []error
	for _, n := range []struct {
		path         string
		kind         uint32
		major, minor uint32
		mode         os.FileMode
	}{
		{"/dev/net/tun", unix.S_IFCHR, 10, 200, 0o666},
		{"/dev/fuse", unix.S_IFCHR, 10, 229, 0o666},
		{"/dev/loop-control", unix.S_IFCHR, 10, 237, 0o660},
		{"/dev/vhost-net", unix.S_IFCHR, 10, 238, 0o600},
	} {
		errs = append(errs, os.MkdirAll(filepath.Dir(n.path), 0o755))
		err := unix.Mknod(n.path, n.kind, int(unix.Mkdev(n.major, n.minor)))
		errs = append(errs, ignoring(err, os.ErrExist), os.Chmod(n.path, n.mode))
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2", "/dev/core": "/proc/kcore",
	} {
		errs = append(errs, ignoring(os.Symlink(target, link), os.ErrExist))
	}
	return errors.Join(errs...)
}

func mountInDev() error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC
	return errors.Join(
		mountNew("devpts", "/dev/pts", "devpts", quiet, "gid=5,mode=0620,ptmxmode=0666"),
		mountNew("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mountNew("mqueue", "/dev/mqueue", "mqueue", quiet|unix.MS_NODEV, ""))
}
