package doctor

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/names"
	"banger/internal/vmm/qemu"
)

// host is what remedies and checks depend on, so that tests can have another.
type host struct {
	arch   string
	family string // of distributions: debian, fedora, arch, suse or ""
	uid    int
	home   string
	owner  func(path string) (uid int, err error)
	fsType func(path string) (int64, error)
	free   func(path string) (uint64, error)

	systemd string // is there where systemd runs
	lingers string // has a file for each user who lingers
	kills   func(context.Context) bool

	dns string // where a daemon answers for names of VMs

	withheld func() []string // what would hold a VMM back and cannot be had
}

func thisHost() host {
	home, _ := os.UserHomeDir()
	release, _ := os.ReadFile("/etc/os-release")
	return host{
		arch: runtime.GOARCH, family: family(string(release)), uid: os.Getuid(), home: home,
		owner: ownerOf, fsType: fsTypeOf, free: freeAt,
		systemd: "/run/systemd/system", lingers: "/var/lib/systemd/linger", kills: killsUserProcesses,
		dns: names.Address, withheld: qemu.Withheld,
	}
}

// family reads ID and ID_LIKE of os-release.
func family(release string) string {
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		for word := range strings.FieldsSeq(strings.Trim(value, `"'`)) {
			switch word {
			case "debian", "ubuntu":
				return "debian"
			case "fedora", "rhel", "centos":
				return "fedora"
			case "arch", "suse":
				return word
			}
		}
	}
	return ""
}

// packages names what holds a tool, by family.
var packages = map[string]map[string]string{
	"qemu-system-x86_64": {"debian": "qemu-system-x86", "fedora": "qemu-system-x86-core", "arch": "qemu-system-x86", "suse": "qemu-x86"},
	"mkfs.ext4":          {"debian": "e2fsprogs", "fedora": "e2fsprogs", "arch": "e2fsprogs", "suse": "e2fsprogs"},
	"mmdebstrap":         {"debian": "mmdebstrap", "fedora": "mmdebstrap"},
	"newuidmap":          {"debian": "uidmap", "fedora": "shadow-utils", "arch": "shadow", "suse": "shadow"},
	"dpkg-deb":           {"debian": "dpkg", "fedora": "dpkg", "arch": "dpkg", "suse": "dpkg"},
	"git":                {"debian": "git", "fedora": "git", "arch": "git", "suse": "git"},
	"ssh":                {"debian": "openssh-client", "fedora": "openssh-clients", "arch": "openssh", "suse": "openssh-clients"},
}

var installers = map[string]string{
	"debian": "sudo apt-get install ",
	"fedora": "sudo dnf install ",
	"arch":   "sudo pacman -S ",
	"suse":   "sudo zypper install ",
}

// install is the command that gets a tool here.
func (h host) install(tool string) string {
	if name := packages[tool][h.family]; name != "" {
		return installers[h.family] + name
	}
	return "install the package that holds " + tool
}

// existing is the nearest directory above path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func ownerOf(path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return int(st.Uid), nil
}

func fsTypeOf(path string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return int64(st.Type), err
}

func freeAt(path string) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return st.Bavail * uint64(st.Bsize), err
}
