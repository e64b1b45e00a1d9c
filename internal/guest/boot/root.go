package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Where things are in the initramfs until the root is entered. Afterwards no
// path leads there any more.
const (
	imageDir = "/mnt/image"
	diskDir  = "/mnt/disk"
	newRoot  = "/mnt/root"
)

// Directories of the writable disk.
const (
	upperDir   = ".banger/upper"
	workDir    = ".banger/work"
	enginesDir = ".banger/engines"
	trashDir   = ".banger/trash"
)

// Layers lists the directories of a writable disk that hold what the guest has
// written.
func Layers(disk string) []string {
	return []string{filepath.Join(disk, upperDir), filepath.Join(disk, enginesDir)}
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// mountNew makes the directory first.
func mountNew(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return mount(source, target, kind, flags, data)
}

func mountKernelFileSystems() error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, dir string
		flags     uintptr
		data      string
	}{
		{"proc", "/proc", plain, ""},
		{"sysfs", "/sys", plain, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	} {
		if err := ignoring(mountNew(m.kind, m.dir, m.kind, m.flags, m.data), unix.EBUSY); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot mounts image and disk, lays one over the other and makes that the
// root of this process and of all to come.
func (s *System) enterRoot() error {
	image, err := s.disk("root")
	if err != nil {
		return err
	}
	disk, err := s.disk("disk")
	if err != nil {
		return err
	}
	if err := mountNew(image, imageDir, "ext4", unix.MS_RDONLY, "noload"); err != nil {
		return err
	}
	if err := mountDisk(disk); err != nil {
		return err
	}
	if s.Disk, err = os.Open(diskDir); err != nil {
		return err
	}
	if err := s.mountOverlay(); err != nil {
		return err
	}
	return switchRoot()
}

// mountDisk has the kernel read what is free where it is wanted, and not all of
// it at some time in the first seconds, which would be the same moment of every
// fork of a template. Older kernels do not know the option.
func mountDisk(disk string) error {
	err := mountNew(disk, diskDir, "ext4", 0, "no_prefetch_block_bitmaps")
	if errors.Is(err, unix.EINVAL) {
		err = mount(disk, diskDir, "ext4", 0, "")
	}
	return err
}

func (s *System) mountOverlay() error {
	for _, dir := range []string{upperDir, workDir} {
		if err := os.MkdirAll(filepath.Join(diskDir, dir), 0o755); err != nil {
			return err
		}
	}
	s.problem("clean /tmp", cleanTmp())
	source := s.cmdline["banger.image"]
	if source == "" {
		source = "overlay"
	}
	layers := "lowerdir=" + imageDir + ",upperdir=" + diskDir + "/" + upperDir + ",workdir=" + diskDir + "/" + workDir
	// With redirect_dir a directory of the image can be renamed, as on any
	// other file system; without it that is EXDEV.
	err := mountNew(source, newRoot, "overlay", 0, layers+",redirect_dir=on")
	if err != nil {
		err = mount(source, newRoot, "overlay", 0, layers)
	}
	return err
}

// cleanTmp empties /tmp before the overlay is there, in no time whatever was
// in it: the old one is set aside, and an opaque directory hides the image's.
func cleanTmp() error {
	if info, err := os.Lstat(imageDir + "/tmp"); err == nil && !info.IsDir() {
		return nil // the image wants it elsewhere
	}
	tmp, trash := filepath.Join(diskDir, upperDir, "tmp"), filepath.Join(diskDir, trashDir)
	if err := os.MkdirAll(trash, 0o700); err != nil {
		return err
	}
	old, err := os.MkdirTemp(trash, "tmp-")
	if err != nil {
		return err
	}
	if err := ignoring(unix.Rename(tmp, old), unix.ENOENT); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	return unix.Setxattr(tmp, "trusted.overlay.opaque", []byte("y"), 0)
}

// EmptyTrash removes what cleanTmp set aside.
func (s *System) EmptyTrash() {
	if s.Disk != nil {
		_ = os.RemoveAll(filepath.Join(procPath(s.Disk), trashDir))
	}
}

// switchRoot makes newRoot the root. The kernel's own helpers see it too:
// PID 1 shares its root with them.
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// procPath is a path to an open file, for system calls that want one.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func shareMounts() error { return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }

// bindEngineDirs gives container engines directories of the plain disk: they
// use overlays themselves, and an overlay cannot be the upper layer of one.
func (s *System) bindEngineDirs() error {
	for _, name := range []string{"docker", "containerd", "containers"} {
		plain := filepath.Join(procPath(s.Disk), enginesDir, name)
		if err := os.MkdirAll(plain, 0o711); err != nil {
			return err
		}
		if err := mountNew(plain, "/var/lib/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}
