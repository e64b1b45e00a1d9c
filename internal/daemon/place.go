package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
)

// prepare makes the directories the daemon lives in.
func prepare(dirs paths.Dirs) error {
	for _, dir := range []string{dirs.State, dirs.Cache} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return banger.Errorf(banger.Unavailable, "cannot make the directory %s: %w", dir, reason(err)).
				Hint("set XDG_STATE_HOME and XDG_CACHE_HOME to directories you can write")
		}
	}
	if err := unix.Access(dirs.State, unix.W_OK|unix.X_OK); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot write in the state directory %s: %w", dirs.State, err).
			Hint("set XDG_STATE_HOME to a directory you can write")
	}
	return nil
}

// private opens the directory of the socket, which may lie in /tmp where
// others can plant things: it is made if missing, and must be a directory of
// our own that nobody else can look into.
func private(path string) (*os.File, error) {
	refuse := func(format string, args ...any) (*os.File, error) {
		return nil, banger.Errorf(banger.Unavailable, "cannot use the runtime directory %s: "+format, append([]any{path}, args...)...).
			Hint("set XDG_RUNTIME_DIR to a directory of your own, or unset it")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return refuse("%w", reason(err))
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return refuse("%w", reason(err))
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return refuse("it is not a directory but a file or symbolic link")
	} else if err != nil {
		return refuse("%w", reason(err))
	}
	if err := own(dir); err != nil {
		dir.Close()
		return refuse("%w", err)
	}
	return dir, nil
}

func own(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return errors.New("it belongs to another user")
	}
	if info.Mode().Perm() != 0o700 {
		return dir.Chmod(0o700)
	}
	return nil
}

// reason strips what the sentence around it says already.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
