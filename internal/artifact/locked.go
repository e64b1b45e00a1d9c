package artifact

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// TryLock is Lock without waiting: ok is false where somebody else has it.
func TryLock(path string) (unlock func(), ok bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	unlock, err = Lock(ctx, path)
	if errors.Is(err, context.Canceled) {
		return nil, false, nil
	}
	return unlock, err == nil, err
}

// Locked says whether somebody has the lock at path, without taking it: who
// merely looks makes nobody wait, and no file.
func Locked(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return false, err
	}
	defer f.Close()
	// As in "1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF". The device of some
	// file systems (btrfs) is not the one that stat tells; a lock on a file of the
	// same number elsewhere only makes us careful.
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], inode) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// scratchPrefix begins the names of what this room and its users make before it
// gets its own.
const scratchPrefix = ".tmp-"

// staleAge is longer than anybody works on one thing.
const staleAge = time.Hour

// Stale lists what was left unfinished in a directory that several processes use: a
// Scratch that nobody holds, and of what has no lock that which nobody has touched
// for long.
func Stale(dir string) (paths []string) {
	found, _ := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	for _, path := range found {
		if stale(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

func stale(path string) bool {
	if isHeld(path) {
		locked, err := Locked(path)
		return err == nil && !locked
	}
	info, err := os.Lstat(path)
	return err == nil && time.Since(info.ModTime()) > staleAge
}
