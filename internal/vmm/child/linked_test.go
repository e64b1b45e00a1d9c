package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestProgramWithLibrariesOfItsOwnRuns builds one as a package manager in somebody's home does: its
// interpreter, its library and that one's library are there, and links lead to them.
func TestProgramWithLibrariesOfItsOwnRuns(t *testing.T) {
	needLandlock(t)
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	file := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	gcc := func(args ...string) {
		t.Helper()
		cmd := exec.Command("gcc", args...)
		cmd.Dir = dir
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
	}
	interpreter, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2")
	if err != nil {
		t.Skip(err)
	}
	file("lib/ld.so", string(interpreter))
	file("cellar/deep/deep.c", "int deep(void) { return 7; }")
	file("cellar/near/near.c", "int deep(void); int near(void) { return deep(); }")
	file("bin/main.c", "int near(void); int main(void) { return near(); }")
	gcc("-shared", "-fPIC", "-o", "cellar/deep/libdeep.so", "cellar/deep/deep.c")
	gcc("-shared", "-fPIC", "-o", "cellar/near/libnear.so", "cellar/near/near.c", "-Lcellar/deep", "-ldeep", "-Wl,-rpath,$ORIGIN/../cellar/deep")
	if err := os.Symlink(filepath.Join(dir, "cellar/near/libnear.so"), filepath.Join(dir, "lib/libnear.so")); err != nil {
		t.Fatal(err)
	}
	gcc("-o", "bin/program", "bin/main.c", "-Llib", "-lnear", "-Wl,-rpath-link,cellar/deep",
		"-Wl,-rpath,"+filepath.Join(dir, "lib"), "-Wl,--dynamic-linker="+filepath.Join(dir, "lib/ld.so"))

	program := filepath.Join(dir, "bin/program")
	linked := Linked(program)
	want := []string{filepath.Join(dir, "lib/ld.so"), filepath.Join(dir, "lib/libnear.so"), filepath.Join(dir, "cellar/deep/libdeep.so")}
	if !same(linked, want) {
		t.Errorf("linked with %q, want %q", linked, want)
	}
	for n := range append(linked, "") {
		less := slices.Delete(slices.Clone(linked), n, min(n+1, len(linked)))
		access := Access{Read: slices.Concat(less, []string{program, "/etc/ld.so.cache"}, Software)}
		c, err := Start(Spec{Path: program, Access: &access})
		runs := err == nil && c.Wait().ExitStatus() == 7
		if runs != (n == len(linked)) {
			t.Errorf("with %q it runs: %v (%v)", less, runs, err)
		}
	}
	if got := Linked("/bin/sh"); len(got) > 0 {
		t.Errorf("the system's shell is linked with %q", got)
	}
	if got := Linked(filepath.Join(dir, "bin/main.c")); len(got) > 0 {
		t.Errorf("a text is linked with %q", got)
	}
}
