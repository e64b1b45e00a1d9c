package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/apt"
	"banger/internal/ext4"

	"golang.org/x/sys/unix"
)

// debianImage is what mmdebstrap is asked for.
type debianImage struct {
	codename string
	source   string
	env      []string
	packages []string
	excluded []string // paths dpkg leaves out of this build; a later apt install is whole
}

var debianBookworm = debianImage{
	codename: "bookworm",
	source:   "Debian bookworm, built with mmdebstrap from the host's package sources",
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

// stopGrace is how long mmdebstrap may take to clean up after itself when it
// is cancelled. Removing a tree takes it a few seconds.
const stopGrace = 20 * time.Second

// buildDebian writes dir/rootfs.ext4 and gives the number of packages in it.
func buildDebian(ctx context.Context, image debianImage, dir string, progress func(string)) (packages int, err error) {
	mode, err := buildMode()
	if err != nil {
		return 0, err
	}
	progress("reading the host's package sources")
	sources, options, err := hostSources(ctx, image.codename, dir)
	if err != nil {
		return 0, err
	}
	scratch, err := makeScratch(dir)
	if err != nil {
		return 0, err
	}
	status := filepath.Join(dir, "status")
	args := image.arguments(mode, options, status)
	if err := runBuild(ctx, args, sources, scratch, filepath.Join(dir, rootfsFile), progress); err != nil {
		return 0, err
	}
	return countPackages(status)
}

// hostSources gives the sources for mmdebstrap's standard input and the
// host's settings for fetching from them.
func hostSources(ctx context.Context, codename, dir string) (sources string, options []string, err error) {
	aptDir := filepath.Join(dir, "apt")
	if err := os.MkdirAll(aptDir, 0o700); err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(aptDir)
	client, err := apt.Open(aptDir)
	if err != nil {
		return "", nil, err
	}
	if sources, err = client.DebianSources(ctx, codename); err != nil {
		return "", nil, err
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

// runBuild turns what mmdebstrap writes into a file system as it comes.
func runBuild(ctx context.Context, args []string, sources, scratch, rootfs string, progress func(string)) error {
	// The parent-death signal is sent when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMPDIR="+scratch, "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdin = strings.NewReader(sources)
	messages := &messageWriter{progress: progress}
	cmd.Stderr = messages
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = stopGrace
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot run mmdebstrap: %w", err)
	}
	writeErr := ext4.FromTar(ctx, out, rootfs, ext4.Options{Unique: true})
	if writeErr != nil {
		cancel()
	}
	_, _ = io.Copy(io.Discard, out) // what follows the end of the archive
	runErr := cmd.Wait()
	if runErr != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what of its group is left
	}
	// A tar that breaks off is mmdebstrap's failure if it said why.
	if runErr != nil && (writeErr == nil || messages.errors() != "") {
		return banger.Errorf(banger.Unavailable, "mmdebstrap failed: %s", messages.tail(runErr))
	}
	if errors.Is(writeErr, unix.ENOSPC) {
		return banger.Errorf(banger.NoSpace, "there is no space left: %w", writeErr)
	}
	return writeErr
}

// countPackages counts the installed packages in a copy of dpkg's status.
func countPackages(status string) (int, error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, fmt.Errorf("cannot count the packages: %w", err)
	}
	return bytes.Count(b, []byte("\nStatus: install ok installed\n")), os.Remove(status)
}
