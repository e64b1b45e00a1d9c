package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// script makes an executable that says one thing.
func script(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu-system-x86_64")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindReadsTheVersion(t *testing.T) {
	for says, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)": "7.2.22",
		"QEMU emulator version 10.0.2":                                "10.0.2",
	} {
		path := script(t, says)
		if bin, version, err := Find(path); err != nil || bin != path || version != want {
			t.Errorf("%q: Find = %q, %q, %v", says, bin, version, err)
		}
	}
}

func TestFindRefusesWhatCannotWork(t *testing.T) {
	for says, want := range map[string]banger.Code{
		"QEMU emulator version 7.1.0":    banger.BadVersion,
		"QEMU emulator version 6.2.0":    banger.BadVersion,
		"Bochs x86 Emulator 2.7":         banger.Unavailable,
		"QEMU emulator version unknown!": banger.Unavailable,
	} {
		if _, _, err := Find(script(t, says)); banger.CodeOf(err) != want {
			t.Errorf("%q: err = %v, want %s", says, err, want)
		}
	}
}

func TestFindNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, _, err := Find("")
	if banger.CodeOf(err) != banger.NotFound || !slices.ContainsFunc(banger.HintsOf(err), func(h string) bool {
		return strings.Contains(h, "apt-get install qemu-system-x86")
	}) {
		t.Errorf("err = %v, hints %q", err, banger.HintsOf(err))
	}
}
