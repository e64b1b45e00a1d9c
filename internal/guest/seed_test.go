package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestASeedFillsAHomeAndLeavesItsOwn(t *testing.T) {
	dir := t.TempDir()
	seed, home := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	long, when := strings.Repeat("long-", 40), time.Unix(1_600_000_000, 123_456_789)
	makeTree(t, seed, long, when)
	err := errors.Join(
		os.Mkdir(filepath.Join(seed, "lost+found"), 0o700), // mkfs's
		os.Mkdir(filepath.Join(seed, ".config"), 0o700),
		os.WriteFile(filepath.Join(seed, ".profile"), []byte("the seed's"), 0o600),
		os.MkdirAll(filepath.Join(home, ".config/own"), 0o755),
		os.WriteFile(filepath.Join(home, ".profile"), []byte("the image's, and longer"), 0o644),
		os.Chmod(home, 0o711))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as after a power cut
		if err := fillHome(seed, home); err != nil {
			t.Fatal(err)
		}
	}
	checkTree(t, home, long, when)
	if got, err := os.ReadFile(filepath.Join(home, ".profile")); err != nil || string(got) != "the seed's" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(home, ".config/own")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(home, "lost+found")); err == nil {
		t.Error("it has the file system's own directory")
	}
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the home has become %v, %v", info.Mode(), err)
	}
}

func TestASeedsOwnersStay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	seed, home := t.TempDir(), t.TempDir()
	path := filepath.Join(seed, "theirs")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 1234, 4321), fillHome(seed, home)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(home, "theirs"))
	if err != nil || sysStat(info).Uid != 1234 || sysStat(info).Gid != 4321 {
		t.Errorf("%+v %v", info, err)
	}
}

func TestAHomeThatIsNotThereIsMade(t *testing.T) {
	seed, home := t.TempDir(), filepath.Join(t.TempDir(), "a/home")
	if err := errors.Join(os.WriteFile(filepath.Join(seed, "f"), nil, 0o600), fillHome(seed, home)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
}

func TestWhatASeedMustNotHaveIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		make func(seed, home string) error
		want string
	}{
		"a pipe":   {func(seed, _ string) error { return unix.Mkfifo(filepath.Join(seed, "odd"), 0o600) }, `"odd"`},
		"a device": {func(seed, _ string) error { return unix.Mknod(filepath.Join(seed, "odd"), unix.S_IFCHR|0o600, 0x103) }, `"odd"`},
		"a file where the image has a directory": {func(seed, home string) error {
			return errors.Join(os.WriteFile(filepath.Join(seed, "odd"), nil, 0o600), os.Mkdir(filepath.Join(home, "odd"), 0o700))
		}, "a directory is there"},
		"a directory where the image's link leads out": {func(seed, home string) error {
			return errors.Join(os.Mkdir(filepath.Join(seed, "odd"), 0o700), os.WriteFile(filepath.Join(seed, "odd/evil"), nil, 0o600),
				os.Symlink("..", filepath.Join(home, "odd")))
		}, `"odd`},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			seed, home := t.TempDir(), filepath.Join(outside, "home")
			err := errors.Join(os.Mkdir(home, 0o700), c.make(seed, home))
			if errors.Is(err, os.ErrPermission) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := fillHome(seed, home); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(outside); len(left) != 1 {
				t.Errorf("outside: %v", left)
			}
		})
	}
}
