// Package kmod writes names of kernel modules as the kernel's own tables do.
// Who writes the tables of a modules disk and who reads them in the guest must
// agree on it.
//
// It knows nothing of where modules lie or how they are loaded.
package kmod

import (
	"path"
	"strings"
)

// Name is the name of the module in a file: file names may have hyphens where
// names have underscores.
func Name(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return Canonical(name)
}

// Canonical writes a name or an alias as the tables do: hyphens are
// underscores but inside brackets.
func Canonical(s string) string {
	b := []byte(s)
	depth := 0
	for i, c := range b {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '-' && depth == 0:
			b[i] = '_'
		}
	}
	return string(b)
}
