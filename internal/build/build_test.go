package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const program = `package main

import ("fmt"; "banger/internal/build")

var content = "CONTENT"

func main() { fmt.Println(build.ID(), build.Version(), build.Commit(), len(content)) }
`

// compile builds a program that lies inside the module, so that it may import
// internal packages, and under a dot, so that ./... does not see it.
func compile(t *testing.T, content string, flags ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", ".test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(strings.Replace(program, "CONTENT", content, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "program")
	args := append([]string{"build", "-trimpath", "-o", bin}, flags...)
	if out, err := exec.Command("go", append(args, source)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

func run(t *testing.T, bin string) []string {
	t.Helper()
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestIDTellsBuildsApartByContentAlone(t *testing.T) {
	for name, flags := range map[string][]string{
		"as make does": {"-ldflags", "-s -w"},
		"without note": {"-ldflags", "-buildid="},
	} {
		one, same, other := compile(t, "a", flags...), compile(t, "a", flags...), compile(t, "b", flags...)
		a, b, c := run(t, one)[0], run(t, same)[0], run(t, other)[0]
		if a != b || a == c || len(a) != 16 {
			t.Errorf("%s: the same content gave %s and %s, another %s", name, a, b, c)
		}
	}
}

func TestVersionAndCommitComeFromTheLinker(t *testing.T) {
	bin := compile(t, "a", "-ldflags", "-X banger/internal/build.version=v1.2.3 -X banger/internal/build.commit=abc")
	if got := run(t, bin); got[1] != "v1.2.3" || got[2] != "abc" {
		t.Errorf("got %q", got)
	}
}
