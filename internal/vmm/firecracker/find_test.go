package firecracker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// saying is a program that says this for its version.
func saying(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersionsAreJudgedByName(t *testing.T) {
	for _, c := range []struct {
		says, version string
		code          banger.Code
		why           string // in the error, or in the warning
	}{
		{says: "Firecracker v1.16.1", version: "1.16.1"},
		{says: "Firecracker v1.16.0", version: "1.16.0", code: banger.BadVersion, why: "loses its connections"},
		{says: "Firecracker v1.15.2", version: "1.15.2", code: banger.BadVersion, why: "packet size"},
		{says: "Firecracker v1.8.0", version: "1.8.0", code: banger.BadVersion, why: "packet size"},
		{says: "Firecracker v1.7.0", version: "1.7.0", code: banger.BadVersion, why: "ACPI"},
		{says: "Firecracker v0.25.2", version: "0.25.2", code: banger.BadVersion, why: "ACPI"},
		{says: "Firecracker v1.17.0-dev", version: "1.17.0", why: "not tried"},
		{says: "Firecracker v2.0.0", version: "2.0.0", why: "not tried"},
		{says: "hello", code: banger.Unavailable, why: "no Firecracker"},
	} {
		t.Run(c.says, func(t *testing.T) {
			path := saying(t, c.says)
			f, err := Find(path)
			if c.code != "" {
				if banger.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), c.version) {
					t.Errorf("err = %v of code %s, want %s, the version and %q", err, banger.CodeOf(err), c.code, c.why)
				}
				return
			}
			if err != nil || f.Path != path || f.Version != c.version || !strings.Contains(f.Warning, c.why) || (c.why == "") != (f.Warning == "") {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

func TestFirecrackerThatIsNotThereIsNotFound(t *testing.T) {
	if _, err := Find("/nonexistent/firecracker"); banger.CodeOf(err) != banger.NotFound || !strings.Contains(err.Error(), "firecracker_bin") {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(""); banger.CodeOf(err) != banger.NotFound || len(banger.HintsOf(err)) == 0 {
		t.Error(err)
	}
}
