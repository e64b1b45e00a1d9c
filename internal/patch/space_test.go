package patch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// Small file systems, one a bit larger than the other: an apply comes to their end
// wherever that can be. The test runs itself where it may mount them.
func TestApplyThatFindsNoRoomLeavesTheTreeAsItWas(t *testing.T) {
	const mounts = "BANGER_TEST_MOUNTS"
	if os.Getenv(mounts) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), mounts+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err != nil && !errors.As(err, &exit):
			t.Skipf("no namespace of mounts can be had here: %v", err)
		case err != nil:
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	for unit, first := range map[string]int{"nr_inodes=%d": 24, "size=%dk": 64} {
		failed, step := 0, 1
		if unit == "size=%dk" {
			step = 4
		}
		for most := first; ; most += step {
			if most > 1000 {
				t.Fatalf("%s: there is never room", unit)
			}
			if !applyWithin(t, fmt.Sprintf(unit, most)) {
				failed++
			} else {
				break
			}
		}
		if t.Logf("%s: it failed %d times", unit, failed); failed < 5 {
			t.Errorf("%s: it failed %d times only", unit, failed)
		}
	}
}

// applyWithin tries in a file system of that size, and says whether there was room.
func applyWithin(t *testing.T, size string) bool {
	t.Helper()
	r := newRig(t, nil)
	must(t, os.RemoveAll(r.root))
	must(t, os.Mkdir(r.root, 0o755))
	must(t, unix.Mount("tmpfs", r.root, "tmpfs", 0, "mode=755,"+size))
	defer func() { must(t, unix.Unmount(r.root, 0)) }()
	before.write(t, r.root)
	files{".git/config": "[core]", ".git/hooks/x": "", ".git/HEAD": "ref: refs/heads/main"}.write(t, r.root)
	_, err := r.apply(r.contents.between(before, after))
	if err == nil {
		r.holds(after)
		return true
	}
	if banger.CodeOf(err) != banger.NoSpace || errors.As(err, new(HalfDone)) {
		t.Errorf("%s: %v", size, err)
	}
	r.holds(before)
	return false
}

func TestApplyRefusesWhatThereIsNoRoomFor(t *testing.T) {
	r := newRig(t, before)
	changes := r.contents.between(before, after)
	changes[0].Size = 1 << 60
	_, err := r.apply(changes)
	if banger.CodeOf(err) != banger.NoSpace {
		t.Errorf("%v", err)
	}
	r.holds(before)
}
