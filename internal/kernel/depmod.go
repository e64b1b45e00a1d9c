package kernel

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"banger/internal/kmod"
)

// The files that tell modprobe, and banger's agent, what is where. A kernel
// package leaves them to the installing host; here they are computed, always
// in the same way, so that a kernel has the same digest wherever it was
// imported.

// moduleTree is the modules of one release.
type moduleTree struct {
	modules  []module          // in the order of modules.order, then by path
	byName   map[string]int    // index into modules
	builtins map[string]string // name → path, from modules.builtin
}

func newModuleTree(modules []module, order, builtin string) *moduleTree {
	rank := map[string]int{}
	for p := range strings.Lines(order) {
		if plain, ok := isModuleFile(strings.TrimSpace(p)); ok {
			rank[plain] = len(rank) + 1
		}
	}
	rankOf := func(m module) int {
		if r, ok := rank[m.path]; ok {
			return r
		}
		return len(rank) + 1
	}
	slices.SortFunc(modules, func(a, b module) int {
		return cmp.Or(cmp.Compare(rankOf(a), rankOf(b)), cmp.Compare(a.path, b.path))
	})
	t := &moduleTree{modules: modules, byName: map[string]int{}, builtins: map[string]string{}}
	for i, m := range modules {
		t.byName[m.name] = i
	}
	for p := range strings.Lines(builtin) {
		if p = strings.TrimSpace(p); p != "" {
			t.builtins[kmod.Name(p)] = p
		}
	}
	return t
}

// loadOrder lists the modules that must be loaded for the one named, in
// order, itself last. Built-in ones need no loading.
func (t *moduleTree) loadOrder(name string) ([]module, error) {
	var out []module
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name string) error
	visit = func(name string) error {
		if _, builtin := t.builtins[name]; builtin || state[name] == 2 {
			return nil
		}
		if state[name] == 1 {
			return fmt.Errorf("the module %s depends on itself", name)
		}
		i, ok := t.byName[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s", name)
		}
		state[name] = 1
		for _, dep := range t.modules[i].depends {
			if err := visit(dep); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, t.modules[i])
		return nil
	}
	return out, visit(name)
}

// depLine is a line of modules.dep: the module, then what it needs, so that
// loading from right to left works.
func (t *moduleTree) depLine(m module) (string, error) {
	chain, err := t.loadOrder(m.name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.path, err)
	}
	var line strings.Builder
	line.WriteString(m.path + ":")
	// One that is built in too needs no loading, and has no chain.
	for _, dep := range slices.Backward(chain[:max(len(chain), 1)-1]) {
		line.WriteString(" " + dep.path)
	}
	return line.String(), nil
}

// indexFiles are the files of the release directory that are computed. What each
// module needs is written out in full, which a few modules can make very long.
func (t *moduleTree) indexFiles(ctx context.Context) (map[string][]byte, error) {
	var dep, alias, softdep bytes.Buffer
	var depIndex, aliasIndex, builtinIndex index
	alias.WriteString("# Aliases extracted from modules themselves.\n")
	for i, m := range t.modules {
		line, err := t.depLine(m)
		if err != nil {
			return nil, err
		}
		if fmt.Fprintln(&dep, line); dep.Len() > maxIndex {
			return nil, fmt.Errorf("modules.dep would have more than %d bytes", maxIndex)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		depIndex.add(m.name, line, i)
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", kmod.Canonical(a), m.name)
			aliasIndex.add(kmod.Canonical(a), m.name, i)
		}
		for _, s := range m.softdeps {
			fmt.Fprintf(&softdep, "softdep %s %s\n", m.name, s)
		}
		if alias.Len()+softdep.Len() > maxIndex {
			return nil, fmt.Errorf("modules.alias and modules.softdep would have more than %d bytes", maxIndex)
		}
	}
	for name := range t.builtins {
		builtinIndex.add(name, "", 0)
	}
	files := map[string][]byte{"modules.dep": dep.Bytes(), "modules.alias": alias.Bytes(), "modules.softdep": softdep.Bytes()}
	for name, x := range map[string]*index{"modules.dep.bin": &depIndex, "modules.alias.bin": &aliasIndex, "modules.builtin.bin": &builtinIndex} {
		if files[name] = x.bytes(); len(files[name]) > maxIndex {
			return nil, fmt.Errorf("%s would have more than %d bytes", name, maxIndex)
		}
	}
	return files, nil
}
