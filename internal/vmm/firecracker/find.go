package firecracker

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"banger"
)

// program is what Firecracker calls itself.
const program = "firecracker"

// findLimit bounds asking Firecracker for its version.
const findLimit = 10 * time.Second

var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`Firecracker v(\d+\.\d+\.\d+)`)
})

// Found is a Firecracker that can be used.
type Found struct {
	Path    string
	Version string
	Warning string // what to know of this version, or ""
}

// Find gives Firecracker's executable. path is the configured one, or empty to look in PATH.
// One that is not there is not_found, one that cannot be used bad_version, with the reason.
func Find(path string) (Found, error) {
	configured := path != ""
	if !configured {
		path = program
	}
	bin, err := exec.LookPath(path)
	if err != nil && configured {
		return Found{}, banger.Errorf(banger.NotFound, "cannot find Firecracker where firecracker_bin says: %w", err).
			Hint("correct firecracker_bin in the configuration, or remove it to have Firecracker looked for in PATH")
	}
	if err != nil {
		return Found{}, banger.Errorf(banger.NotFound, "cannot find Firecracker: %w", err).
			Hint("install Firecracker %s", tested)
	}
	version, err := versionOf(bin)
	if err != nil {
		return Found{Path: bin}, err
	}
	warning, err := judge(version)
	return Found{bin, version.String(), warning}, err
}

// Where is the path of what Find would judge, or empty where there is none.
func Where(path string) string {
	bin, err := exec.LookPath(cmp.Or(path, program))
	if err != nil {
		return ""
	}
	return bin
}

func versionOf(bin string) (version, error) {
	ctx, cancel := context.WithTimeout(context.Background(), findLimit)
	defer cancel()
	said, err := exec.CommandContext(ctx, bin, "--version").Output()
	if err != nil {
		return version{}, banger.Errorf(banger.Unavailable, "cannot ask %s for its version: %w", bin, err)
	}
	match := versionPattern().FindSubmatch(said)
	if match == nil {
		return version{}, banger.Errorf(banger.Unavailable, "cannot use %s: it is no Firecracker (it says %q)", bin, said[:min(len(said), 80)])
	}
	return parseVersion(string(match[1]))
}

// version is a release: major, minor, patch.
type version [3]int

func parseVersion(text string) (v version, err error) {
	_, err = fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2])
	return v, err
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) before(o version) bool {
	for i := range v {
		if v[i] != o[i] {
			return v[i] < o[i]
		}
	}
	return false
}

// Releases of Firecracker that made a difference.
var (
	withACPI  = version{1, 8, 0}
	withMTU   = version{1, 16, 0} // and with another socket's name on a restore
	withVsock = version{1, 16, 1} // connections of guests that were restored
	tested    = withVsock
)

// judge refuses a version by name, or says what to know of it.
func judge(v version) (warning string, err error) {
	refuse := func(why string) (string, error) {
		return "", banger.Errorf(banger.BadVersion, "cannot use Firecracker %s: %s", v, why).
			Hint("install Firecracker %s", tested)
	}
	switch {
	case v.before(withACPI):
		return refuse("it shows a guest its devices in no way that its kernel knows (ACPI came with " + withACPI.String() + ")")
	case v.before(withMTU):
		return refuse("it can neither give a guest's network card its packet size nor a restored guest its own socket (both came with " + withMTU.String() + ")")
	case v.before(withVsock):
		return refuse("a guest that was restored loses its connections to the host (mended in " + withVsock.String() + ")")
	case v != tested:
		return fmt.Sprintf("Firecracker %s was not tried with this banger, which was with %s", v, tested), nil
	}
	return "", nil
}
