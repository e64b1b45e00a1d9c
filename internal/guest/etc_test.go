package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guestwire"
)

func TestOwnFileIsWrittenInItsPlace(t *testing.T) {
	f := ownFile{path: filepath.Join(t.TempDir(), "file")}
	var first fileVersion
	for i, text := range []string{"one\n", "much longer\n", "s\n", "s\n"} {
		if err := f.overwrite(text, 0o444); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(f.path); string(got) != text {
			t.Fatalf("got %q, want %q", got, text)
		}
		if i == 0 {
			first = versionOf(f.path)
		}
		if versionOf(f.path).ino != first.ino {
			t.Fatalf("%q came in another file", text)
		}
	}
}

func TestOwnFileNoticesWhatOthersWrote(t *testing.T) {
	f := ownFile{path: filepath.Join(t.TempDir(), "file")}
	if err := f.overwrite("ours\n", 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path, []byte("theirs, and longer\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := f.read(); got != "theirs, and longer\n" {
		t.Fatalf("read %q", got)
	}
	if err := f.overwrite("ours\n", 0o644); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(f.path); string(got) != "ours\n" {
		t.Fatalf("got %q", got)
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if err := f.overwrite("ours\n", 0o644); err != nil || !exists(f.path) {
		t.Fatalf("the file that was removed is not there again: %v", err)
	}
}

func TestHostsOfAnotherVMKeepTheUsersLines(t *testing.T) {
	e := newEtc()
	e.hosts.path = filepath.Join(t.TempDir(), "hosts")
	set := func(name, ip string) string {
		t.Helper()
		if err := e.setHosts(guestwire.Setup{Hostname: name, GuestIP: ip}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(e.hosts.path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := set("one", "10.77.0.2")
	for _, edited := range []string{
		"10.9.9.9 build\n" + first + "10.9.9.8 test\n",
		strings.Replace(first, "10.77.0.2", "#10.77.0.2", 1), // out of use
	} {
		if err := os.WriteFile(e.hosts.path, []byte(edited), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"two", strings.Repeat("n", 63), "one"} {
			got := set(name, "10.77.0.3")
			if strings.Count(got, hostsMark) != 1 || !strings.Contains(got, hostsLine(guestwire.Setup{Hostname: name, GuestIP: "10.77.0.3"})) {
				t.Fatalf("for %s: %q", name, got)
			}
			for line := range strings.Lines(edited) {
				if !strings.Contains(line, hostsMark) && !strings.Contains(got, line) {
					t.Fatalf("%q is lost in %q", line, got)
				}
			}
		}
	}
}
