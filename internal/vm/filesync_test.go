package vm

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/config"
)

func TestSeedHasTheFilesWithTheirModesAndNoLinksInside(t *testing.T) {
	home := t.TempDir()
	for name, mode := range map[string]os.FileMode{"dir/sub/script": 0o755, "dir/secret": 0o600, "real": 0o644} {
		if err := os.MkdirAll(filepath.Dir(home+"/"+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(home+"/"+name, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "real", "dir/inner": "/etc/passwd", "dirlink": "dir"} {
		if err := os.Symlink(target, home+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	var warnings []string
	err := writeSeed(home+"/seed", []config.FileSync{
		{Host: home + "/link", Guest: "/root/.config/one", Mode: 0o600},
		{Host: home + "/missing", Guest: "/root/two", Mode: 0o600},
		{Host: home + "/dirlink", Guest: "/root/three", Mode: 0o600},
	}, func(w string) { warnings = append(warnings, w) })
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(home + "/seed")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := ""
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(in)
		got += fmt.Sprintf("%s %o %s\n", h.Name, h.Mode, content)
	}
	want := "root/.config/one 600 real\nroot/three/ 755 \nroot/three/secret 600 dir/secret\nroot/three/sub/ 755 \nroot/three/sub/script 755 dir/sub/script\n"
	if got != want {
		t.Errorf("the seed has\n%s, want\n%s", got, want)
	}
	all := strings.Join(warnings, "\n")
	if len(warnings) != 2 || !strings.Contains(all, "file_sync[1]") || !strings.Contains(all, "dir/inner was left out") {
		t.Errorf("warnings %q", warnings)
	}
}

func TestSeedThatCannotBeReadIsAnError(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(home+"/fifo-dir", 0o755); err != nil {
		t.Fatal(err)
	}
	err := writeSeed(home+"/seed", []config.FileSync{{Host: home + "/seed", Guest: "/root/x"}, {Host: "/dev/null", Guest: "/root/y"}}, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "file_sync[1]") {
		t.Errorf("%v; want one about file_sync[1]", err)
	}
	if banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) != 1 || !strings.Contains(err.Error(), "/dev/null is no regular file") {
		t.Errorf("%s: %v, hints %q", banger.CodeOf(err), err, banger.HintsOf(err))
	}
}

func TestSeedThatCannotBeWrittenIsNoFaultOfTheFile(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/state/seed.tar", Err: unix.ENOSPC}
	f := config.FileSync{Host: "/home/me/token"}
	if err := syncError(f, "/state/seed.tar", full); banger.CodeOf(err) != banger.NoSpace || strings.Contains(err.Error(), f.Host) {
		t.Errorf("%s: %v", banger.CodeOf(err), err)
	}
}

// What is forgotten here goes into images made of the VM.
func TestAVMRemembersWhatWasSyncedWhenItWasMade(t *testing.T) {
	w := newWorld(t)
	w.config.FileSync = []config.FileSync{{Host: t.TempDir() + "/token", Guest: "/root/.token", Mode: 0o600}}
	v := w.create(Create{Name: "box"})
	w.config.FileSync = nil
	s, err := w.CreateSnapshot(t.Context(), v.ID, "", quiet{})
	if err == nil {
		_, err = w.RestoreSnapshot(t.Context(), v.ID, s.ID, true, quiet{})
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.Fork(t.Context(), v.ID, Fork{}, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{v.ID, out.VMs[0].ID} {
		h, err := ReadHeld(w.Dirs.VM(id))
		if now := w.get(id); err != nil || len(now.Spec.Synced) != 1 || now.Spec.Synced[0] != "/root/.token" || len(h.Spec.Synced) != 1 {
			t.Errorf("%s remembers %q, its record %q, %v", now.Name, now.Spec.Synced, h.Spec.Synced, err)
		}
	}
}
