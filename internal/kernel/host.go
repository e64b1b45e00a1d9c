package kernel

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"banger"

	"golang.org/x/sys/unix"
)

// HostKernel is the name of the kernel that this host runs.
const HostKernel = "host"

// hostRequest finds the kernel that runs and its modules. Some distributions let
// only root read it.
func (s *Store) hostRequest() (ImportRequest, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return ImportRequest{}, err
	}
	release := unix.ByteSliceToString(uts.Release[:])
	modules := filepath.Join(s.host, "lib/modules", release)
	if !isDir(modules) {
		return ImportRequest{}, banger.Errorf(banger.Unavailable, "the modules of the running kernel %s are not in %s", release, modules).
			Hint("banger kernel pull %s", banger.DefaultKernel)
	}
	for _, path := range []string{filepath.Join(s.host, "boot/vmlinuz-"+release), filepath.Join(modules, "vmlinuz")} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			return ImportRequest{}, banger.Errorf(banger.Unavailable, "only root may read %s", path).
				Hint("sudo install -m 644 %s /tmp/vmlinuz", path).
				Hint("banger kernel import %s --vmlinuz /tmp/vmlinuz --modules %s", HostKernel, modules)
		}
		if err != nil {
			return ImportRequest{}, err
		}
		return ImportRequest{Name: HostKernel, Vmlinuz: path, Modules: modules, Source: "the kernel of this host, " + path}, f.Close()
	}
	return ImportRequest{}, banger.Errorf(banger.Unavailable, "the running kernel %s is neither in %s nor beside its modules", release, filepath.Join(s.host, "boot")).
		Hint("banger kernel pull %s", banger.DefaultKernel)
}

func (s *Store) pullHost(ctx context.Context, progress func(string)) (banger.Kernel, error) {
	req, err := s.hostRequest()
	if err != nil {
		return banger.Kernel{}, err
	}
	progress("importing " + req.Vmlinuz)
	return s.importLocked(ctx, req)
}
