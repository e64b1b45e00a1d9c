package boot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger/internal/kmod"

	"golang.org/x/sys/unix"
)

// Modprobe loads the modules of names or aliases from /lib/modules, with what
// they depend on.
func Modprobe(names []string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(uts.Release[:]))
	var errs []error
	for _, name := range names {
		files, err := resolveModule(dir, name)
		for _, file := range files {
			if err == nil {
				err = loadModule(filepath.Join(dir, file), "")
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// resolveModule lists the files to load for a name or an alias, in order. An
// alias can have several modules; each is wanted.
func resolveModule(dir, name string) ([]string, error) {
	name = kmod.Canonical(name)
	modules := []string{name}
	aliased, err := aliasedModules(filepath.Join(dir, "modules.alias"), name)
	if err != nil {
		return nil, err
	}
	files, err := dependencies(filepath.Join(dir, "modules.dep"), append(modules, aliased...))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no module %s", name)
	}
	return files, err
}

// aliasedModules finds the modules with an alias that name matches.
func aliasedModules(file, name string) ([]string, error) {
	var modules []string
	err := eachLine(file, func(line string) {
		rest, ok := strings.CutPrefix(line, "alias ")
		if !ok {
			return
		}
		pattern, module, _ := strings.Cut(rest, " ")
		if len(pattern) > 0 && len(name) > 0 && pattern[0] != name[0] && !strings.ContainsRune("*?[", rune(pattern[0])) {
			return // nearly every line; path.Match is slow
		}
		// In aliases a * takes in slashes too, but no name has one.
		if match, err := path.Match(pattern, name); match && err == nil {
			modules = append(modules, module)
		}
	})
	return modules, err
}

// dependencies lists the files of modules, each after what it needs, from
// lines "FILE: NEEDED…" whose right end is to be loaded first.
func dependencies(file string, modules []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	err := eachLine(file, func(line string) {
		module, needs, _ := strings.Cut(line, ":")
		if !contains(modules, kmod.Name(module)) {
			return
		}
		chain := append([]string{module}, strings.Fields(needs)...)
		for i := len(chain) - 1; i >= 0; i-- {
			if !seen[chain[i]] {
				seen[chain[i]] = true
				files = append(files, chain[i])
			}
		}
	})
	return files, err
}

func eachLine(file string, visit func(line string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		visit(lines.Text())
	}
	return lines.Err()
}

func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}
