package image

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"banger"
)

// buildMode picks how mmdebstrap becomes root in its tree, and refuses a host
// that lacks what it needs.
func buildMode() (string, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", banger.Errorf(banger.Unavailable, "mmdebstrap is not installed here").
			Hint("sudo apt install mmdebstrap uidmap")
	}
	if os.Geteuid() == 0 {
		return "root", nil
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return "", banger.Errorf(banger.Unavailable, "newuidmap is not installed here, which an ordinary user needs").
			Hint("sudo apt install uidmap")
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !hasSubIDs(file, u) {
			return "", banger.Errorf(banger.Unavailable, "%s has no range for %s, which an ordinary user needs", file, u.Username).
				Hint("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username)
		}
	}
	return "unshare", nil
}

func hasSubIDs(file string, u *user.User) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		owner, _, _ := strings.Cut(lines.Text(), ":")
		if owner == u.Username || owner == u.Uid {
			return true
		}
	}
	return false
}

// The tree is unpacked in a scratch directory whose whole path others may
// pass: as an ordinary user's it belongs to sub-uids, who could not enter a
// home directory. Its name is noted in the build directory before it is made,
// so that it is found after a crash.

const scratchNote = "scratch"

// makeScratch makes the scratch directory of the build in dir.
func makeScratch(dir string) (string, error) {
	base, err := scratchBase()
	if err != nil {
		return "", err
	}
	scratch := filepath.Join(base, "banger-build-"+banger.NewID())
	if err := os.WriteFile(filepath.Join(dir, scratchNote), []byte(scratch), 0o600); err != nil {
		return "", err
	}
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return "", fmt.Errorf("cannot make a directory to build in: %w", err)
	}
	return scratch, os.Chmod(scratch, 0o755) // whatever the umask
}

func scratchBase() (string, error) {
	for _, dir := range []string{os.Getenv("TMPDIR"), "/var/tmp", "/tmp"} {
		if filepath.IsAbs(dir) && passable(dir) {
			return dir, nil
		}
	}
	return "", banger.Errorf(banger.Unavailable, "there is no directory to build in: neither /var/tmp nor /tmp can be entered by everybody").
		Hint("set TMPDIR to a directory that everybody may enter")
}

// passable says whether any user may enter dir.
func passable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

// clearBuild removes the build directory and the scratch directory it names.
func clearBuild(dir string) error {
	note, err := os.ReadFile(filepath.Join(dir, scratchNote))
	if err == nil && strings.HasPrefix(filepath.Base(string(note)), "banger-build-") {
		if err := removeScratch(string(note)); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// removeScratch removes what may belong to sub-uids: only a process mapped
// like the build can.
func removeScratch(scratch string) error {
	if err := refuseMounts(scratch); err != nil {
		return err
	}
	err := os.RemoveAll(scratch)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	out, err := exec.Command("mmdebstrap", "--unshare-helper", "rm", "-rf", "--", scratch).CombinedOutput()
	if err == nil {
		err = os.RemoveAll(scratch)
	} else if _, gone := os.Lstat(scratch); errors.Is(gone, fs.ErrNotExist) {
		err = nil
	} else {
		err = os.RemoveAll(scratch) // the directory itself is ours, its parent's sticky bit keeps it from them
	}
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot remove %s, left from a build: %w (%s)", scratch, err, strings.TrimSpace(string(out))).
			Hint("sudo rm -rf %s", scratch)
	}
	return nil
}

// refuseMounts makes sure that removing dir cannot reach another file system.
func refuseMounts(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			return banger.Errorf(banger.Conflict, "cannot remove %s, left from a build: something is mounted at %s", dir, fields[4]).
				Hint("sudo umount %s", fields[4])
		}
	}
	return nil
}
