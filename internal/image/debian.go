package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/apt"
)

// debianImage is what mmdebstrap is asked for.
type debianImage struct {
	codename string
	source   string
	ref      string // its like in a registry, for hosts that cannot build it
	env      []string
	packages []string
	excluded []string // paths dpkg leaves out of this build; a later apt install is whole
}

var debianBookworm = debianImage{
	codename: "bookworm",
	source:   "Debian bookworm, built with mmdebstrap from the host's package sources",
	ref:      "debian:bookworm",
	env: []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	},
	packages: []string{
		"git", "curl", "ca-certificates", "make", "gcc", "libc6-dev", "python3", "openssh-client", "procps",
		"iproute2", "less", "nano", "jq", "sudo", "rsync", "unzip", "zstd", "kmod", "systemd-sysv", "udev", "dbus",
	},
	excluded: []string{
		"/usr/share/man/*", "/usr/share/info/*", "/usr/share/lintian/*", "/usr/share/doc/*",
		"/usr/share/locale/*", "/usr/bin/*-lto-dump-*",
	},
}

// exclude runs when the base system is unpacked and tells dpkg what to leave
// out from here on. As an option of mmdebstrap the same would send the base
// system through a filter in Perl first, which takes longer than all it saves.
func (d debianImage) exclude() string {
	var b strings.Builder
	b.WriteString("set -eu\ncat > \"$1/etc/dpkg/dpkg.cfg.d/99banger\" <<'END'\n")
	for _, path := range d.excluded {
		fmt.Fprintf(&b, "path-exclude=%s\n", path)
	}
	b.WriteString("path-include=/usr/share/doc/*/copyright\npath-include=/usr/share/locale/locale.alias\nEND")
	return b.String()
}

// finish runs in the finished tree, before mmdebstrap packs it: the host's
// name and resolvers are no part of an image, nor are the settings that only
// this build was to have.
const finish = `set -eu
: > "$1/etc/machine-id"
: > "$1/etc/resolv.conf"
chmod 0644 "$1/etc/machine-id" "$1/etc/resolv.conf"
rm -f "$1/etc/hostname" "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1"/etc/dpkg/dpkg.cfg.d/99*
find "$1/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$1"/usr/share/man/* "$1"/usr/share/info/* "$1"/usr/share/lintian/* "$1"/usr/share/locale/*/
rm -rf "$1"/var/log/apt/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old`

// errElsewhere says that the host has no package sources to build from.
var errElsewhere = errors.New("it is not among the host's package sources")

// buildDebian writes dir/rootfs.ext4 and gives the number of packages in it.
func buildDebian(ctx context.Context, image debianImage, dir string, lock *os.File, proxies []string, progress func(string)) (packages int, err error) {
	progress("reading the host's package sources")
	sources, options, err := hostSources(ctx, image.codename, dir, proxies)
	if err != nil {
		return 0, err
	}
	mode, err := buildMode()
	if err != nil {
		return 0, err
	}
	scratch, err := makeScratch(dir)
	if err != nil {
		return 0, err
	}
	status := filepath.Join(dir, "status")
	run := mmdebstrap{
		args: image.arguments(mode, options, status), sources: sources,
		scratch: scratch, lock: lock, proxies: proxies, progress: progress,
	}
	if err := run.into(ctx, filepath.Join(dir, rootfsFile)); err != nil {
		return 0, err
	}
	return countPackages(status)
}

// hostSources gives the sources for mmdebstrap's standard input and the
// host's settings for fetching from them.
func hostSources(ctx context.Context, codename, dir string, proxies []string) (sources string, options []string, err error) {
	if !apt.Installed() {
		return "", nil, errElsewhere
	}
	aptDir := filepath.Join(dir, "apt")
	if err := os.MkdirAll(aptDir, 0o700); err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(aptDir)
	client, err := apt.Open(aptDir, proxies)
	if err != nil {
		return "", nil, err
	}
	sources, err = client.DebianSources(ctx, codename)
	if err != nil || sources == "" {
		return "", nil, cmp.Or(err, errElsewhere)
	}
	options, err = client.AcquireOptions(ctx)
	return sources, options, err
}

func (d debianImage) arguments(mode string, aptOptions []string, status string) []string {
	args := []string{
		"--mode=" + mode, "--format=tar", "--variant=minbase", "--architectures=amd64",
		"--include=" + strings.Join(d.packages, ","),
		// Nothing of a build that did not finish is kept, so nothing need be synced.
		"--dpkgopt=force-unsafe-io",
		`--aptopt=APT::Install-Recommends "false"`,
		`--aptopt=Acquire::Languages "none"`,
		`--aptopt=Dir::Etc::netrc "/etc/apt/auth.conf"`,
		`--aptopt=Dir::Etc::netrcparts "/etc/apt/auth.conf.d"`,
	}
	for _, option := range aptOptions {
		args = append(args, "--aptopt="+option)
	}
	args = append(args,
		"--extract-hook="+d.exclude(),
		"--customize-hook="+finish,
		"--customize-hook=download /var/lib/dpkg/status "+shellQuoted(status))
	return append(args, d.codename, "-", "-")
}

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// countPackages counts the installed packages in a copy of dpkg's status.
func countPackages(status string) (int, error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, fmt.Errorf("cannot count the packages: %w", err)
	}
	return bytes.Count(b, []byte("\nStatus: install ok installed\n")), os.Remove(status)
}
