package cli

import (
	"path"
	"strings"

	"banger"
	"banger/client"
)

// side is one side of a copy: VM:PATH, or a local path where vm is empty.
type side struct{ vm, path string }

func (s side) isStream() bool { return s.vm == "" && s.path == "-" }

// parseSide reads one argument. What begins with a dot or a slash is local,
// whatever colons it has, but for the VM of the repository one stands in.
func parseSide(arg string) side {
	if path, ok := strings.CutPrefix(arg, client.Here+":"); ok {
		return side{client.Here, path}
	}
	if strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "/") {
		return side{path: arg}
	}
	vm, path, ok := strings.Cut(arg, ":")
	if !ok || vm == "" {
		return side{path: arg}
	}
	return side{vm, path}
}

// copySides reads both arguments; exactly one of them is in a VM.
func copySides(source, destination string) (from, to side, err error) {
	from, to = parseSide(source), parseSide(destination)
	switch {
	case source == "" || destination == "":
		return from, to, badUsage("cannot copy: a path is empty")
	case from.vm == "" && to.vm == "":
		return from, to, badUsage("cannot copy: neither %q nor %q is in a VM", source, destination).
			Hint("banger cp FILE VM:PATH, or banger cp VM:PATH FILE")
	case from.vm != "" && to.vm != "":
		return from, to, badUsage("cannot copy from VM to VM").
			Hint("banger cp %s - | banger cp - %s", source, destination)
	}
	return from, to, nil
}

// rooted is a path in a guest, where relative ones begin at the root. What
// its end says (a slash, or "/.") is kept.
func rooted(p string) string {
	clean := path.Clean("/" + p)
	switch {
	case clean == "/":
		return clean
	case contentsOnly(p):
		return clean + "/."
	case strings.HasSuffix(p, "/"):
		return clean + "/"
	}
	return clean
}

// contentsOnly says whether a source means what is inside a directory.
func contentsOnly(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// placement is where a copy goes: below Dir, with everything under Name, or
// the source's contents right in Dir where Name is ".".
type placement struct{ dir, name string }

// kind is what is at a path.
type kind int

const (
	nothing kind = iota
	file
	directory
)

// place applies docker's rules: source is the source's path and what it is,
// destination the target's. exists says what is at another path of the
// target's side.
func place(source string, what kind, destination string, there kind, parent func(string) kind) (placement, error) {
	base := path.Base(path.Clean(source))
	clean := path.Clean(destination)
	switch there {
	case directory:
		if what == directory && (contentsOnly(source) || base == "/") {
			return placement{clean, "."}, nil
		}
		return placement{clean, base}, nil
	case file:
		if what == directory {
			return placement{}, banger.Errorf(banger.Conflict, "cannot copy a directory over the file %s", clean)
		}
		if strings.HasSuffix(destination, "/") {
			return placement{}, banger.Errorf(banger.Conflict, "cannot copy to %s: it is not a directory", destination)
		}
		return placement{path.Dir(clean), path.Base(clean)}, nil
	}
	if what == file && strings.HasSuffix(destination, "/") {
		return placement{}, notThere(destination)
	}
	if dir := path.Dir(clean); parent(dir) != directory {
		return placement{}, notThere(dir)
	}
	return placement{path.Dir(clean), path.Base(clean)}, nil
}

func notThere(dir string) error {
	return banger.Errorf(banger.NotFound, "cannot copy to %s: there is no such directory", dir)
}
