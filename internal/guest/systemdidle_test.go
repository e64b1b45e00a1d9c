package guest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSystemdIsSparedOnlyWhatComesToNothing(t *testing.T) {
	masked := func(root, path string) bool {
		target, err := os.Readlink(filepath.Join(root, path))
		return err == nil && target == os.DevNull
	}
	generators, units := runtimeGenerators+"/", runtimeUnits+"/"
	for _, c := range []struct {
		has  string
		does string // what it is needed by then
	}{
		{"/etc/crypttab", generators + "systemd-cryptsetup-generator"},
		{"/etc/veritytab", generators + "systemd-veritysetup-generator"},
		{"/etc/integritytab", generators + "systemd-integritysetup-generator"},
		{"/etc/rc.local", generators + "systemd-rc-local-generator"},
		{"/system-update", generators + "systemd-system-update-generator"},
		{"/usr/lib/repart.d", units + "modprobe@loop.service"},
		{"/etc/repart.d", units + "modprobe@dm_mod.service"},
		{"/dev/dri", units + "modprobe@drm.service"},
		{"/sys/firmware/efi", units + "modprobe@efi_pstore.service"},
	} {
		without, with := t.TempDir(), t.TempDir()
		err := errors.Join(os.MkdirAll(filepath.Join(with, c.has), 0o755), spareSystemd(without), spareSystemd(with))
		if err != nil {
			t.Fatal(err)
		}
		if !masked(without, c.does) || masked(with, c.does) {
			t.Errorf("%s is masked without %s: %v, with it: %v", c.does, c.has, masked(without, c.does), masked(with, c.does))
		}
	}
}

func TestGeneratorsAreMaskedOnlyForTheStart(t *testing.T) {
	root := t.TempDir()
	own := filepath.Join(root, runtimeGenerators, "systemd-run-generator")
	if err := spareSystemd(root); err != nil {
		t.Fatal(err)
	}
	// Of the image's own making, meanwhile.
	if err := errors.Join(os.Remove(own), os.WriteFile(own, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	unmaskGenerators(root)
	left, err := os.ReadDir(filepath.Dir(own))
	if err != nil || len(left) != 1 || left[0].Name() != "systemd-run-generator" {
		t.Errorf("%v %v", left, err)
	}
}
