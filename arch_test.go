package banger_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// rooms says what each package may import of the project. A room that is not
// listed is refused: give it a line, and with it a place in the house.
// docs/ARCHITECTURE.md explains the arrows.
var rooms = map[string][]string{
	"banger":                     {},
	"banger/client":              {"banger", "internal/api", "internal/paths", "internal/peer", "internal/build"},
	"banger/cmd/banger":          {"internal/cli"},
	"banger/cmd/banger-guest":    {"internal/guest"},
	"banger/internal/api":        {"banger"},
	"banger/internal/apt":        {"banger", "internal/artifact"},
	"banger/internal/artifact":   {"banger"},
	"banger/internal/bench":      {"banger", "internal/ext4", "internal/guestlink", "internal/guestwire", "internal/paths", "internal/shim", "internal/template", "internal/vmm", "internal/vmm/firecracker", "internal/vmm/qemu"},
	"banger/internal/build":      {},
	"banger/internal/cli":        {"*"},
	"banger/internal/config":     {"banger", "internal/vnet/reach"},
	"banger/internal/daemon":     {"*"},
	"banger/internal/doctor":     {"banger", "internal/artifact", "internal/build", "internal/config", "internal/image", "internal/kernel", "internal/loopback", "internal/names", "internal/paths", "internal/shim", "internal/sshconfig", "internal/store", "internal/template", "internal/vm", "internal/vmm", "internal/vmm/firecracker", "internal/vmm/qemu"},
	"banger/internal/ext4":       {"banger", "internal/artifact"},
	"banger/internal/guest":      {"internal/guest/boot", "internal/guestwire", "internal/tether"},
	"banger/internal/guestbin":   {},
	"banger/internal/guestlink":  {"banger", "internal/guestwire"},
	"banger/internal/guestwire":  {},
	"banger/internal/hostca":     {},
	"banger/internal/image":      {"banger", "internal/apt", "internal/artifact", "internal/ext4", "internal/oci", "internal/rootfs"},
	"banger/internal/kernel":     {"banger", "internal/apt", "internal/artifact", "internal/ext4", "internal/kmod", "internal/oci"},
	"banger/internal/kmod":       {},
	"banger/internal/layers":     {"banger", "internal/artifact", "internal/ext4"},
	"banger/internal/patch":      {"banger", "internal/artifact"},
	"banger/internal/logfile":    {},
	"banger/internal/loopback":   {"banger"},
	"banger/internal/oci":        {"banger", "internal/artifact"},
	"banger/internal/names":      {"banger"},
	"banger/internal/paths":      {},
	"banger/internal/ports":      {"banger"},
	"banger/internal/peer":       {},
	"banger/internal/rootfs":     {"internal/artifact"},
	"banger/internal/service":    {"banger", "internal/artifact"},
	"banger/internal/shim":       {"banger", "internal/guestlink", "internal/guestwire", "internal/logfile", "internal/loopback", "internal/paths", "internal/peer", "internal/ports", "internal/vmm", "internal/vnet/reach"},
	"banger/internal/sshconfig":  {},
	"banger/internal/sshd":       {"banger", "internal/guestlink", "internal/guestwire"},
	"banger/internal/sshkeys":    {"banger", "internal/artifact", "internal/paths"},
	"banger/internal/store":      {"banger", "internal/artifact"},
	"banger/internal/template":   {"banger", "internal/artifact", "internal/ext4", "internal/guestlink", "internal/guestwire", "internal/vmm"},
	"banger/internal/vm":         {"banger", "internal/artifact", "internal/config", "internal/ext4", "internal/guestwire", "internal/layers", "internal/loopback", "internal/paths", "internal/ports", "internal/shim", "internal/template", "internal/vmm", "internal/vnet/reach"},
	"banger/internal/tether":     {},
	"banger/internal/vnet":       {"banger", "internal/vnet/reach"},
	"banger/internal/vnet/reach": {"banger"},
	"banger/internal/vnet/ways":  {},
	"banger/test/e2e/probe":      {"internal/vnet/ways"},
	"banger/internal/vmm":        {"banger"},
	"banger/internal/vmm/child":  {"banger", "internal/vmm"},
	"banger/internal/vmm/qemu":   {"banger", "internal/vmm", "internal/vmm/child"},
	"banger/internal/guest/boot": {"internal/kmod"},
	"banger/internal/workspace":  {"banger", "internal/patch"},
	"banger/test/e2e":            {"internal/vnet/ways", "test/world"},
	"banger/test/world":          {},
	"banger/test/bench":          {"*"},

	"banger/internal/vmm/firecracker": {"banger", "internal/tether", "internal/vmm", "internal/vmm/child"},
}

// owners lists the packages that may import a library that opens a door to
// the outside world.
var owners = map[string][]string{
	"database/sql":                     {"banger/internal/store"},
	"net/http":                         {"banger/client", "banger/internal/daemon", "banger/internal/oci", "banger/internal/vmm/firecracker", "banger/test/bench"},
	"modernc.org/sqlite":               {"banger/internal/store"},
	"github.com/danielgtaylor/huma/v2": {"banger/internal/daemon"},
	"golang.org/x/crypto/ssh":          {"banger/internal/sshd", "banger/internal/sshkeys"},
	"github.com/spf13/cobra":           {"banger/internal/cli"},
	"os/exec": {
		"banger/client", "banger/internal/shim", "banger/internal/vmm/child", "banger/internal/vmm/firecracker", "banger/internal/vmm/qemu", // daemon, shim, VMM
		"banger/internal/apt", "banger/internal/image", "banger/internal/kernel", "banger/internal/ext4", "banger/internal/artifact", // the host's package tools
		"banger/internal/workspace", // git
		"banger/internal/sshconfig", // where the host's ssh is
		"banger/internal/oci",       // credential helpers
		"banger/internal/doctor", "banger/internal/bench", "banger/test/bench", "banger/test/world",
		"banger/internal/service", // systemctl, busctl
	},
}

type goPackage struct {
	ImportPath, Doc string
	Imports         []string
	GoFiles         []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		// Test helpers and packages of tests alone are free.
		if len(p.GoFiles) > 0 && !strings.Contains(p.ImportPath, "/vmmtest") {
			all = append(all, p)
		}
	}
}

func TestRoomsImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, p := range listPackages(t) {
		allowed, known := rooms[p.ImportPath]
		if !known {
			t.Errorf("%s has no line in the table of rooms", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if ours(imported) && !allows(allowed, imported) {
				t.Errorf("%s may not import %s", p.ImportPath, imported)
			}
		}
	}
}

func TestDoorsToTheWorldHaveOwners(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imported := range p.Imports {
			if who, guarded := owners[imported]; guarded && !contains(who, p.ImportPath) {
				t.Errorf("%s may not import %s: only %v do", p.ImportPath, imported, who)
			}
		}
	}
}

func TestEveryPackageSaysWhatItHolds(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no doc comment", p.ImportPath)
		}
	}
}

// The agent runs in every guest and its first instructions are on the path of
// every start: it must stay small.
func TestGuestBinaryStaysLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/banger-guest").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "net/http", "os/exec", "encoding/gob", "crypto/tls", "text/template":
			t.Errorf("the guest binary links %s", dep)
		}
	}
}

func ours(path string) bool { return path == "banger" || strings.HasPrefix(path, "banger/") }

func allows(allowed []string, path string) bool {
	return contains(allowed, "*") || contains(allowed, strings.TrimPrefix(path, "banger/"))
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// What -short leaves out runs in `make e2e`, which names its packages.
func TestRealPartsAreRunByMake(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(makefile), "\nREAL := ")
	list, _, _ = strings.Cut(list, "\n")
	out, err := exec.Command("git", "grep", "-l", "testing.Short()", "--", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for file := range strings.Lines(string(out)) {
		dir := "./" + path.Dir(strings.TrimSpace(file))
		named := slices.ContainsFunc(strings.Fields(list), func(p string) bool {
			tree, all := strings.CutSuffix(p, "/...")
			return dir == p || all && strings.HasPrefix(dir+"/", tree+"/")
		})
		if !named && dir != "./." {
			t.Errorf("%s has tests that are not short, and `make e2e` does not run them", dir)
		}
	}
}
