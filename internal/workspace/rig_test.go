package workspace

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// rig is a repository of this host and a stand-in guest to bring it into.
type rig struct {
	*testing.T
	repo, home, path string // the repository, the guest's home, the path in it
	record           banger.Workspace
}

func newRig(t *testing.T) *rig {
	t.Helper()
	top := t.TempDir()
	r := &rig{T: t, repo: top + "/host/project", home: top + "/guest/root"}
	r.path = r.home + "/repo"
	t.Setenv("HOME", top+"/host")
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, dir := range []string{r.repo, r.home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.write("../.gitconfig", "[user]\n\tname = A Person\n\temail = person@example.com\n[init]\n\tdefaultBranch = main\n")
	r.host("init", "-q")
	return r
}

// furnished is a repository with two commits and a bit of everything.
func furnished(t *testing.T) *rig {
	r := newRig(t)
	r.write("README", "first\n")
	r.write("dir/deep/file", "deep\n")
	r.write("run", "#!/bin/sh\n")
	r.chmod("run", 0o755)
	r.write("empty", "")
	r.symlink("dir/deep/file", "link")
	r.symlink("nowhere", "dangling")
	r.commit("one")
	r.write("README", "second\n")
	r.commit("two")
	return r
}

func (r *rig) at(name string) string { return filepath.Join(r.repo, name) }

func (r *rig) write(name, content string) {
	r.Helper()
	writeFile(r.T, r.at(name), content)
}

func (r *rig) inGuest(name, content string) {
	r.Helper()
	writeFile(r.T, filepath.Join(r.path, name), content)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) chmod(name string, mode fs.FileMode) {
	r.Helper()
	if err := os.Chmod(r.at(name), mode); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) symlink(target, name string) {
	r.Helper()
	if err := os.Symlink(target, r.at(name)); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) remove(name string) {
	r.Helper()
	if err := os.RemoveAll(r.at(name)); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) commit(message string) {
	r.Helper()
	r.host("add", "-A")
	r.host("commit", "-q", "-m", message)
}

// host runs git as the person on the host would, guest as somebody in the guest.
func (r *rig) host(args ...string) string {
	r.Helper()
	return run(r.T, r.repo, os.Getenv("HOME"), args...)
}
func (r *rig) guest(args ...string) string { r.Helper(); return run(r.T, r.path, r.home, args...) }

func run(t *testing.T, dir, home string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (r *rig) target() Target {
	return Target{Guest: standIn{r.home}, Path: r.path, Home: r.home, Record: r.record}
}

func (r *rig) plan(o Options) *Plan {
	r.Helper()
	if o.Path == "" {
		o.Path = r.repo
	}
	p, err := NewPlan(context.Background(), o)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

// deliver brings the repository in and notes it as the ledger would.
func (r *rig) deliver(o Options, change ...func(*Target)) (*Prepared, error) {
	r.Helper()
	c, err := r.plan(o).Load(context.Background())
	if err != nil {
		r.Fatal(err)
	}
	defer c.Close()
	to := r.target()
	for _, f := range change {
		f(&to)
	}
	done, err := c.Deliver(context.Background(), to)
	if err == nil {
		r.record = done.Workspace
	}
	return done, err
}

func (r *rig) mustDeliver(o Options, change ...func(*Target)) *Prepared {
	r.Helper()
	done, err := r.deliver(o, change...)
	if err != nil {
		r.Fatal(err)
	}
	return done
}

func forced(t *Target) { t.Force = true }

// listing is every file below a directory with its mode and content, but for
// what is in a git directory.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.Name() == ".git" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		all[name] = describe(t, path, d)
		if d.IsDir() {
			delete(all, name) // git keeps no directories
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func describe(t *testing.T, path string, d fs.DirEntry) string {
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case d.IsDir():
		return info.Mode().String()
	case info.Mode().Type() == fs.ModeSymlink:
		target, _ := os.Readlink(path)
		return "→ " + target
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(content))
}

// sameFiles compares the host's files with the guest's, but for some.
func (r *rig) sameFiles(but ...string) {
	r.Helper()
	host, guest := listing(r.T, r.repo), listing(r.T, r.path)
	for _, name := range but {
		delete(host, name)
		delete(guest, name)
	}
	for _, name := range sortedKeys(host) {
		if guest[name] != host[name] {
			r.Errorf("%q is %q in the guest, %q on the host", name, guest[name], host[name])
		}
		delete(guest, name)
	}
	for name := range guest {
		r.Errorf("%q is in the guest alone", name)
	}
}

// sameStatus compares what git says on both sides, staged or not.
func (r *rig) sameStatus() {
	r.Helper()
	host, guest := r.host("status", "--short", "-uno"), r.guest("status", "--short", "-uno")
	if host != guest {
		r.Errorf("the guest's status\n%s, the host's\n%s", guest, host)
	}
	if out := r.guest("fsck", "--no-dangling"); out != "" {
		r.Errorf("git fsck in the guest: %s", out)
	}
}

// untouched remembers a repository's git directory, byte by byte, and gives what
// compares it.
func (r *rig) untouched() (check func()) {
	r.Helper()
	look := func() map[string]string {
		all := map[string]string{}
		err := filepath.WalkDir(r.repo+"/.git", func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				info, _ := d.Info()
				all[path] = describe(r.T, path, d)
				// Git touches an object that it finds where it would write it.
				if !strings.Contains(path, "/objects/") && !strings.Contains(path, "/sharedindex.") {
					all[path] += info.ModTime().String()
				}
			}
			return err
		})
		if err != nil {
			r.Fatal(err)
		}
		return all
	}
	before := look()
	return func() {
		r.Helper()
		after := look()
		for path, was := range before {
			if after[path] != was {
				r.Errorf("%s of the host was changed", path)
			}
			delete(after, path)
		}
		for path := range after {
			r.Errorf("%s was made on the host", path)
		}
	}
}

func runWith(t *testing.T, dir, home string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func touch(path, when string) error {
	return exec.Command("touch", "-h", "-d", when, path).Run()
}

func gitMayFail(r *rig, args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.repo
	cmd.Env = []string{"HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}
	return cmd.Run()
}
