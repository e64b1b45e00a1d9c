package qemu

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"banger"
)

// program is what QEMU calls itself for this architecture.
const program = "qemu-system-x86_64"

// findLimit bounds asking QEMU for its version.
const findLimit = 10 * time.Second

var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`QEMU emulator version (\d+(?:\.\d+)+)`)
})

// The first version that all this driver uses was tried with.
const oldestMajor, oldestMinor = 7, 2

// Find gives QEMU's executable and its version. path is the configured one, or
// empty to look in PATH.
func Find(path string) (bin, version string, err error) {
	configured := path != ""
	if !configured {
		path = program
	}
	bin, err = exec.LookPath(path)
	if err != nil && configured {
		return "", "", banger.Errorf(banger.NotFound, "cannot find QEMU where qemu_bin says: %w", err).
			Hint("correct qemu_bin in the configuration, or remove it to have QEMU looked for in PATH")
	}
	if err != nil {
		return "", "", banger.Errorf(banger.NotFound, "cannot find QEMU: %w", err).
			Hint("sudo apt-get install qemu-system-x86")
	}
	version, err = versionOf(bin)
	return bin, version, err
}

func versionOf(bin string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), findLimit)
	defer cancel()
	said, err := exec.CommandContext(ctx, bin, "-version").Output()
	if err != nil {
		return "", banger.Errorf(banger.Unavailable, "cannot ask %s for its version: %w", bin, err)
	}
	match := versionPattern().FindSubmatch(said)
	if match == nil {
		return "", banger.Errorf(banger.Unavailable, "cannot use %s: it is no QEMU (it says %q)", bin, said[:min(len(said), 80)])
	}
	return string(match[1]), checkVersion(string(match[1]))
}

func checkVersion(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return err
	}
	if major > oldestMajor || major == oldestMajor && minor >= oldestMinor {
		return nil
	}
	return banger.Errorf(banger.BadVersion, "cannot use QEMU %s: it is older than %d.%d", version, oldestMajor, oldestMinor)
}
