// Package build says which build of banger this is.
//
// It knows its own executable and nothing else.
package build

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"io"
	"os"
	"runtime/debug"
	"sync"
)

// Set by the linker; what is left empty comes from what the go command
// records.
var version, commit, builtAt string

// Version is the released version, or what was known at build time.
func Version() string { return firstOf(version, module(), "unknown") }

// Commit is the commit this was built from.
func Commit() string { return firstOf(commit, setting("vcs.revision"), "unknown") }

// BuiltAt is the time of that commit.
func BuiltAt() string { return firstOf(builtAt, setting("vcs.time"), "unknown") }

// ID is a short digest that two executables share only if their content is
// the same. It costs one small read: the go command leaves a hash of the
// whole executable in it.
var ID = sync.OnceValue(func() string {
	// Not os.Executable, whose file may have been replaced since.
	const self = "/proc/self/exe"
	sum, err := noteDigest(self)
	if err != nil {
		sum, err = contentDigest(self)
	}
	if err != nil {
		return "unknown"
	}
	return hex.EncodeToString(sum[:8])
})

// noteDigest hashes the build id note, whose last part is the content's hash.
func noteDigest(path string) ([]byte, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	note := f.Section(".note.go.buildid")
	if note == nil {
		return nil, os.ErrNotExist
	}
	text, err := note.Data()
	const header = 16 // sizes, type and the owner "Go\0\0"
	if err == nil && len(text) <= header {
		err = os.ErrNotExist // built with an empty id
	}
	sum := sha256.Sum256(text)
	return sum[:], err
}

// contentDigest hashes the whole file, for builds without a note.
func contentDigest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

func module() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return ""
}

func setting(key string) string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
