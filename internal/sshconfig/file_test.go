package sshconfig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func newFile(t *testing.T, text string) File {
	t.Helper()
	dir := t.TempDir()
	f := File{Path: filepath.Join(dir, "ssh", "config"), Include: filepath.Join(dir, "our config")}
	if text != "" {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInstallComesFirstOnceAndGoesWithoutTrace(t *testing.T) {
	for _, text := range []string{"Host a\n  User b\n", "Host a\r\n\tUser b", "\n\n# comment\nMatch all\n"} {
		f := newFile(t, text)
		must(t, f.Install())
		once := read(t, f.Path)
		must(t, f.Install())
		if got := read(t, f.Path); got != once {
			t.Errorf("installed twice: %q, was %q", got, once)
		}
		if want := fenceBegin + "\nInclude \"" + f.Include + "\"\n" + fenceEnd + "\n" + text; once != want {
			t.Errorf("got %q, want %q", once, want)
		}
		if found, first, err := f.Installed(); !found || !first || err != nil {
			t.Errorf("not seen as installed: %v", err)
		}
		must(t, f.Uninstall())
		if got := read(t, f.Path); got != text {
			t.Errorf("left %q, was %q", got, text)
		}
		if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("its mode is %v now", info.Mode())
		}
		must(t, f.Uninstall())
	}
}

func TestInstallMendsAFenceThatWasMovedOrIsOfAnotherPlace(t *testing.T) {
	f := newFile(t, "Host a\n")
	must(t, f.Install())
	_, fence, after := cut([]byte(read(t, f.Path)))
	moved := string(after) + strings.ReplaceAll(string(fence), f.Include, "/elsewhere")
	must(t, os.WriteFile(f.Path, []byte(moved), 0o600))
	if found, first, _ := f.Installed(); !found || first {
		t.Error("seen as installed, or not at all")
	}
	must(t, f.Install())
	if got := read(t, f.Path); got != string(fence)+"Host a\n" {
		t.Errorf("got %q", got)
	}
}

func TestInstallFollowsLinks(t *testing.T) {
	f := newFile(t, "Host a\n")
	link := f.Path + "-link"
	must(t, os.Symlink("config", link))
	real := f.Path
	f.Path = link
	must(t, f.Install())
	if to, err := os.Readlink(link); err != nil || to != "config" {
		t.Fatalf("the link is %q, %v", to, err)
	}
	if !strings.HasPrefix(read(t, real), fenceBegin) {
		t.Error("the file it leads to is unchanged")
	}
	must(t, f.Uninstall())
	if got := read(t, real); got != "Host a\n" {
		t.Errorf("left %q", got)
	}
}

func TestFileOfOursGoesUnlessSomebodyWroteToIt(t *testing.T) {
	f := newFile(t, "")
	must(t, f.Install())
	must(t, f.Install())
	must(t, f.Uninstall())
	if _, err := os.Stat(f.Path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	must(t, f.Install())
	must(t, os.WriteFile(f.Path, []byte(read(t, f.Path)+"Host a\n"), 0o600))
	must(t, f.Uninstall())
	if got := read(t, f.Path); got != "Host a\n" {
		t.Errorf("left %q", got)
	}
}

// settings asks ssh what it would do.
func settings(t *testing.T, config, host string) string {
	t.Helper()
	ssh, err := Client()
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(ssh, "-G", "-F", config, host).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestOtherHostsAreUntouched(t *testing.T) {
	f := newFile(t, "User somebody\nHost b\n  Port 23\n")
	before := settings(t, f.Path, "b")
	place := Place{Exe: "/path with 100%/banger", Env: []string{"XDG_STATE_HOME=/s"}, KnownHosts: "/k h/known", Identity: "/k h/id"}
	must(t, os.WriteFile(f.Include, []byte(place.Block()), 0o600))
	must(t, f.Install())
	if after := settings(t, f.Path, "b"); after != before {
		t.Errorf("it was\n%sand is\n%s", before, after)
	}
	vm := settings(t, f.Path, "devbox.vm")
	for _, want := range []string{
		"user root\n", "identityfile /k h/id\n", "userknownhostsfile /k h/known\n", "stricthostkeychecking true\n", "forwardagent no\n",
		"proxycommand 'env' 'XDG_STATE_HOME=/s' '/path with 100%%/banger' 'ssh-proxy' '%h'\n",
	} {
		if !strings.Contains(vm, want) {
			t.Errorf("no %q in\n%s", want, vm)
		}
	}
}

// TestNameCannotBecomeACommand: ssh has a shell start the proxy, and a name may
// come from a repository's submodules.
func TestNameCannotBecomeACommand(t *testing.T) {
	f := newFile(t, "")
	must(t, f.Install())
	must(t, os.WriteFile(f.Include, []byte(Place{Exe: "/bin/banger", KnownHosts: "/k", Identity: "/i"}.Block()), 0o600))
	ssh, err := Client()
	if err != nil {
		t.Skip(err)
	}
	// Newer ones refuse such a name before they look for the host.
	out, _ := exec.Command(ssh, "-G", "-F", f.Path, "x';touch y;'.vm").CombinedOutput()
	if strings.Contains(string(out), "ssh-proxy") {
		t.Errorf("it would be run:\n%s", out)
	}
	if pattern := `"!*'*"`; !strings.Contains(read(t, f.Include), pattern) {
		t.Errorf("the block does not exclude it by %s", pattern)
	}
}

// The files of home are in a repository that is not there yet.
func TestLinkThatLeadsNowhereIsFollowed(t *testing.T) {
	f := newFile(t, "")
	must(t, os.MkdirAll(filepath.Dir(f.Path), 0o700))
	real := filepath.Join(filepath.Dir(f.Path), "real")
	must(t, os.Symlink("also", f.Path))
	must(t, os.Symlink(real, filepath.Join(filepath.Dir(f.Path), "also")))
	must(t, f.Install())
	if to, err := os.Readlink(f.Path); err != nil || to != "also" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if got := read(t, real); !strings.Contains(got, f.line()) {
		t.Errorf("there is %q", got)
	}
	must(t, f.Uninstall())
	if to, err := os.Readlink(f.Path); err != nil || to != "also" {
		t.Errorf("after the end the link leads to %q, %v", to, err)
	}
}

// As ssh and the kernel see it, .. in a directory that is a link is above what it leads to.
func TestLinkInALinkedDirectoryLeadsWhereTheKernelSays(t *testing.T) {
	home := t.TempDir()
	f := Of(home, filepath.Join(home, "ours"))
	for _, dir := range []string{"dotfiles/ssh", "dotfiles/private", "private", "else/where"} {
		must(t, os.MkdirAll(filepath.Join(home, dir), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(home, "private/ssh_config"), []byte("another file\n"), 0o600))
	must(t, os.Symlink("dotfiles/ssh", filepath.Join(home, ".ssh")))
	must(t, os.Symlink("../private/linked/../ssh_config", f.Path))
	must(t, os.Symlink("../../else/where", filepath.Join(home, "dotfiles/private/linked")))
	must(t, f.Install())
	if got := read(t, filepath.Join(home, "private/ssh_config")); got != "another file\n" {
		t.Errorf("another file is written over: %q", got)
	}
	if got := read(t, filepath.Join(home, "else/ssh_config")); !strings.Contains(got, f.line()) {
		t.Errorf("there is %q", got)
	}
	must(t, f.Uninstall())
	if left, err := os.ReadDir(filepath.Join(home, "else")); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestLinkThatCannotBeFollowedIsRefused(t *testing.T) {
	f := newFile(t, "")
	must(t, os.MkdirAll(filepath.Dir(f.Path), 0o700))
	must(t, os.Symlink("gone/config", f.Path))
	if err := f.Install(); err == nil || !strings.Contains(err.Error(), "gone/config") {
		t.Errorf("got %v", err)
	}
	if to, err := os.Readlink(f.Path); err != nil || to != "gone/config" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}
