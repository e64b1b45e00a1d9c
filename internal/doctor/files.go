package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/store"
)

func (e *exam) database(ctx context.Context) {
	i, err := store.Inspect(ctx, e.dirs.Database())
	if err != nil {
		e.add("database", Fail, err.Error(), banger.HintsOf(err)...)
		return
	}
	switch i.Status {
	case store.StatusMissing:
		e.pass("database", "nothing yet at %s", i.Path)
	case store.StatusCurrent:
		e.pass("database", "level %d, %d VMs, %d images", i.Level, len(i.VMs), len(i.Images))
	case store.StatusOlder:
		e.add("database", Warn, fmt.Sprintf("level %d of %d: the next command upgrades it", i.Level, i.Latest))
	case store.StatusNewer:
		e.add("database", Fail, i.Detail, "use the newer banger, or set XDG_STATE_HOME to another directory")
	case store.StatusForeign:
		e.add("database", Fail, i.Detail, "move "+i.Path+" away, or set XDG_STATE_HOME to another directory")
	default:
		e.add("database", Fail, i.Detail, "to begin anew, move "+i.Path+" away")
	}
}

// directories checks owner and mode of what is there.
func (e *exam) directories(context.Context) {
	good := true
	for _, d := range []struct {
		path    string
		private bool
	}{{e.dirs.State, true}, {e.dirs.Cache, true}, {e.dirs.Runtime, true}, {e.dirs.Config, false}, {e.dirs.VMs(), true}, {e.dirs.Keys(), true}} {
		good = e.directory(d.path, d.private) && good
	}
	if good && e.secrets() {
		e.pass("directories", "%s, %s", e.dirs.State, e.dirs.Cache)
	}
}

func (e *exam) directory(path string, private bool) bool {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e.creatable(path)
	}
	if err != nil {
		e.add("directories", Fail, err.Error())
		return false
	}
	owner, _ := e.host.owner(path)
	switch mode := info.Mode().Perm(); {
	case !info.IsDir():
		e.add("directories", Fail, path+" is not a directory", "move it away")
	case owner != e.host.uid:
		e.add("directories", Fail, fmt.Sprintf("%s belongs to uid %d, not to you", path, owner), fmt.Sprintf("sudo chown -R %s %s", e.host.user(), path))
	case unix.Access(path, unix.W_OK|unix.X_OK) != nil:
		e.add("directories", Fail, path+" cannot be written to", "chmod u+rwx "+path)
	case private && mode&0o077 != 0:
		e.rows = append(e.rows, exposed(path, info.Mode()))
	default:
		return true
	}
	return false
}

// secrets looks at the files that nobody else may read.
func (e *exam) secrets() bool {
	good := true
	names, _ := namesIn(e.dirs.Keys())
	paths := []string{e.dirs.Database()}
	for _, name := range names {
		if !strings.HasSuffix(name, ".pub") {
			paths = append(paths, filepath.Join(e.dirs.Keys(), name))
		}
	}
	for _, path := range paths {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			e.rows = append(e.rows, exposed(path, info.Mode()))
			good = false
		}
	}
	return good
}

// exposed is the row of something others may look into.
func exposed(path string, mode fs.FileMode) Row {
	bits := "700"
	if !mode.IsDir() {
		bits = "600"
	}
	return Row{
		Name: "directories", Verdict: Warn, Detail: fmt.Sprintf("others may look into %s (mode %04o)", path, mode.Perm()),
		Remedies: []string{"chmod " + bits + " " + path},
		Fix:      &Fix{Action: Chmod, Subject: path, Does: "chmod " + bits + " " + path},
	}
}

// creatable says whether a directory that is not there could be made.
func (e *exam) creatable(path string) bool {
	above := existing(path)
	if unix.Access(above, unix.W_OK|unix.X_OK) != nil {
		e.add("directories", Fail, fmt.Sprintf("%s cannot be made: %s cannot be written to", path, above))
		return false
	}
	return true
}

// home refuses root at work in somebody else's home, where it would leave
// files its owner cannot touch.
func (e *exam) home(context.Context) {
	if e.host.uid != 0 {
		return
	}
	owner, err := e.host.owner(e.host.home)
	if err == nil && owner != 0 {
		e.add("home", Fail, fmt.Sprintf("you are root, and HOME=%s belongs to uid %d", e.host.home, owner),
			"run banger as that user, without sudo", "or use sudo -H")
		return
	}
	e.pass("home", "%s", e.host.home)
}

// networkFS are file systems whose locks and memory maps cannot be trusted.
var networkFS = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.V9FS_MAGIC:       "9p",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.AFS_FS_MAGIC:     "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.NCP_SUPER_MAGIC:  "NCP",
	unix.CEPH_SUPER_MAGIC: "Ceph",
}

func (e *exam) fileSystem(context.Context) {
	at := existing(e.dirs.State)
	magic, err := e.host.fsType(at)
	if err != nil {
		e.add("file system", Fail, fmt.Sprintf("cannot look at %s: %v", at, err))
		return
	}
	if name := networkFS[magic]; name != "" {
		e.add("file system", Fail, fmt.Sprintf("%s is on a network file system (%s): locks and disks are not safe there", at, name),
			"set XDG_STATE_HOME to a local directory")
		return
	}
	e.pass("file system", "%s is local", at)
}

// Free space below which things go wrong soon, and at once.
const (
	tight = 10 * banger.GiB
	full  = 2 * banger.GiB
)

func (e *exam) space(context.Context) {
	at := existing(e.dirs.State)
	free, err := e.host.free(at)
	detail := fmt.Sprintf("%s free at %s", banger.ApproxSize(int64(free)), at)
	switch {
	case err != nil:
		e.add("disk space", Fail, fmt.Sprintf("cannot look at %s: %v", at, err))
	case free < uint64(full):
		e.add("disk space", Fail, detail, "banger vm prune", "or set XDG_STATE_HOME to a larger disk")
	case free < uint64(tight):
		e.add("disk space", Warn, detail, "banger vm prune")
	default:
		e.pass("disk space", "%s", detail)
	}
}
