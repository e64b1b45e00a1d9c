package banger

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// IDLen is the length of an id in hexadecimal digits; ShortIDLen is how much
// of one tables show.
const (
	IDLen      = 32
	ShortIDLen = 12
)

// maxName is the longest VM name: one DNS label, since NAME.vm is one.
const maxName = 63

// NewID makes a random id.
func NewID() string {
	var b [IDLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24: it aborts instead
	return hex.EncodeToString(b[:])
}

// ShortID is the form of an id that tables show.
func ShortID(id string) string { return id[:min(len(id), ShortIDLen)] }

// IsID says whether s has the form of an id.
func IsID(s string) bool {
	if len(s) != IDLen {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !isHex(r) }) < 0
}

// ValidateVMName refuses what cannot be a VM's name and says where it is
// wrong. It neither trims nor folds.
func ValidateVMName(name string) error {
	bad := func(format string, args ...any) error {
		return Errorf(BadRequest, "bad VM name %q: %s", name, fmt.Sprintf(format, args...)).
			Hint("a name is 1 to %d lowercase letters, digits and hyphens, for example devbox-2", maxName)
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxName:
		return bad("it has %d characters, at most %d are allowed", len(name), maxName)
	case name == "host":
		return bad("host.vm is the host itself")
	case IsID(name):
		return bad("it has the form of an id")
	}
	if i, r, found := firstNot(name, isVMNameRune); found {
		return bad("%q at position %d is not allowed", r, i)
	}
	if name[0] == '-' {
		return bad("the hyphen at position 1 cannot begin a name")
	}
	if name[len(name)-1] == '-' {
		return bad("the hyphen at position %d cannot end a name", len(name))
	}
	return nil
}

// ValidateImageName refuses what cannot be the name of an image.
func ValidateImageName(name string) error { return validateFileName("image", name) }

// ValidateKernelName refuses what cannot be the name of a kernel.
func ValidateKernelName(name string) error { return validateFileName("kernel", name) }

// ValidateSnapshotName refuses what cannot be the name of a snapshot.
func ValidateSnapshotName(name string) error { return validateFileName("snapshot", name) }

// validateFileName checks a name that also becomes a file name, which is why
// the ones with a meaning to the file system are refused.
func validateFileName(kind, name string) error {
	bad := func(format string, args ...any) error {
		return Errorf(BadRequest, "bad %s name %q: %s", kind, name, fmt.Sprintf(format, args...)).
			Hint("a name is letters, digits, '.', '-' and '_', for example debian-bookworm")
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > 128:
		return bad("it has %d characters, at most 128 are allowed", len(name))
	case name == "." || name == "..":
		return bad("it names a directory")
	case name[0] == '-':
		return bad("the hyphen at position 1 cannot begin a name")
	}
	if i, r, found := firstNot(name, isFileNameRune); found {
		return bad("%q at position %d is not allowed", r, i)
	}
	return nil
}

// firstNot finds the first rune of s that ok does not accept. Positions count
// characters from 1.
func firstNot(s string, ok func(rune) bool) (position int, r rune, found bool) {
	for _, r := range s {
		position++
		if !ok(r) {
			return position, r, true
		}
	}
	return 0, 0, false
}

func isHex(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' }

func isVMNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-'
}

func isFileNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		r == '.' || r == '-' || r == '_'
}
