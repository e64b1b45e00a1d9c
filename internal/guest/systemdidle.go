package guest

import (
	"errors"
	"os"
	"path/filepath"
)

// Much of what a systemd does at its start comes to nothing in this machine, and
// under emulation each program that runs for the first time costs a tenth of a
// second. What is listed here is known beforehand to do nothing: what it gets
// is what it would get.

// idleGenerators are programs that make units of files, and of a kernel's command
// line, which is ours. A generator has nothing to do where none of its files is
// there.
var idleGenerators = map[string][]string{
	"systemd-cryptsetup-generator":       {"/etc/crypttab"},
	"systemd-integritysetup-generator":   {"/etc/integritytab"},
	"systemd-veritysetup-generator":      {"/etc/veritytab"},
	"systemd-rc-local-generator":         {"/etc/rc.local"},
	"systemd-system-update-generator":    {"/system-update", "/etc/system-update"},
	"systemd-hibernate-resume-generator": nil,
	"systemd-run-generator":              nil,
	"systemd-gpt-auto-generator":         nil, // the root is on no partition
}

// idleUnits load modules for what is not there: a screen, firmware that keeps
// records of crashes, and partitions to make, for which a systemd has
// instructions or does nothing. Whoever uses a loop device or the device mapper
// has the kernel ask for the module.
var idleUnits = map[string][]string{
	"modprobe@drm.service":        {"/dev/dri", "/dev/fb0"},
	"modprobe@efi_pstore.service": {"/sys/firmware/efi"},
	"modprobe@loop.service":       repartDirs,
	"modprobe@dm_mod.service":     repartDirs,
}

var repartDirs = []string{"/etc/repart.d", "/run/repart.d", "/usr/lib/repart.d", "/usr/local/lib/repart.d"}

// Where units and generators are masked, until the next boot.
const (
	runtimeUnits      = "/run/systemd/system"
	runtimeGenerators = "/run/systemd/system-generators"
)

// spareSystemd masks what would come to nothing, in the tree at root.
func spareSystemd(root string) error {
	var all []error
	for dir, idle := range map[string]map[string][]string{runtimeUnits: idleUnits, runtimeGenerators: idleGenerators} {
		dir = filepath.Join(root, dir)
		all = append(all, os.MkdirAll(dir, 0o755))
		for name, files := range idle {
			if !anyThere(root, files) {
				all = append(all, os.Symlink(os.DevNull, filepath.Join(dir, name)))
			}
		}
	}
	// The snapshots that it would look for are LVM's.
	text := "[Unit]\nConditionFileIsExecutable=/sbin/lvs\n"
	all = append(all, replaceFile(filepath.Join(root, runtimeUnits, "e2scrub_reap.service.d/banger.conf"), []byte(text), 0o644))
	return errors.Join(all...)
}

func anyThere(root string, files []string) bool {
	for _, file := range files {
		if exists(filepath.Join(root, file)) {
			return true
		}
	}
	return false
}

// unmaskGenerators gives them back for when systemd reads its configuration
// again: there may be files for them then.
func unmaskGenerators(root string) {
	for name := range idleGenerators {
		path := filepath.Join(root, runtimeGenerators, name)
		if target, err := os.Readlink(path); err == nil && target == os.DevNull {
			_ = os.Remove(path)
		}
	}
}
