package child

import (
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Software is where a system keeps its programs, their libraries and their data, and
// nothing of users.
var Software = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store"}

// isSoftware says whether a file lies there, whatever links lead to it.
func isSoftware(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && slices.ContainsFunc(Software, func(dir string) bool { return strings.HasPrefix(real, dir+"/") })
}

// Linked lists what a program needs to be run at all and is not among Software: its interpreter,
// and the libraries that it and they are linked with, where the paths that they hold lead to them. A
// program that somebody built or unpacked in his home, or got from a package manager that lives
// in one, has its libraries anywhere. What is not found it will say itself. The system's own programs
// need nothing more.
func Linked(program string) []string {
	w := linkage{seen: map[string]bool{}}
	if !isSoftware(program) { // to look costs 2 ms
		w.file(program, nil)
	}
	return w.files
}

// linkage follows what files are linked with.
type linkage struct {
	files []string
	seen  map[string]bool
}

// file looks into one; paths are those of whoever needs it.
func (w *linkage) file(path string, paths []string) {
	f, err := elf.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, _ := io.ReadAll(io.LimitReader(p.Open(), 4096))
			w.add(strings.TrimRight(string(text), "\x00"))
		}
	}
	own, _ := f.DynString(elf.DT_RUNPATH)
	old, _ := f.DynString(elf.DT_RPATH)
	paths = append(searched(path, append(own, old...)), paths...)
	needed, _ := f.ImportedLibraries()
	for _, name := range needed {
		for _, dir := range paths {
			library := filepath.Join(dir, name)
			if _, err := os.Stat(library); err == nil {
				if w.add(library) {
					w.file(library, paths)
				}
				break
			}
		}
	}
}

// add says whether a file is new and not of the system's.
func (w *linkage) add(path string) bool {
	if path == "" || w.seen[path] || isSoftware(path) {
		return false
	}
	w.seen[path] = true
	w.files = append(w.files, path)
	return true
}

// searched are the directories that a file holds, which may begin where it is itself: a program where
// it lies, a library where it was found.
func searched(path string, lists []string) []string {
	origins := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != origins[0] {
		origins = append(origins, filepath.Dir(real))
	}
	var dirs []string
	for _, origin := range origins {
		here := strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin)
		for _, list := range lists {
			for dir := range strings.SplitSeq(list, ":") {
				if dir = here.Replace(dir); filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	return dirs
}
