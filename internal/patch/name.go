package patch

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"banger"
)

// StagingPrefix begins the name of the directory, at the top of a tree, in which
// changes wait to be put in place. A tree may not bring one of its own.
const StagingPrefix = ".banger-apply-"

// longestName is what file systems take.
const longestName = 255

// CheckPath refuses a path that could lead out of a tree or into git's own
// files, on any file system: also on one that folds case, ignores characters or
// has short names and streams.
func CheckPath(path string) error {
	for i, name := range strings.Split(path, "/") {
		if err := checkName(name); err != "" {
			return refusal(path, err)
		}
		if i == 0 && hasFoldedPrefix(plain(name), StagingPrefix) {
			return refusal(path, "it lies where banger keeps changes on their way")
		}
	}
	return nil
}

func refusal(path, why string) error {
	return banger.Errorf(banger.Conflict, "the guest's tree holds the path %q: %s", path, why)
}

// checkName says what is wrong with one name of a path. A backslash separates
// names on some file systems and is ordinary on others: each part must be
// harmless by itself.
func checkName(name string) (why string) {
	switch {
	case plain(name) == "":
		return "it has an empty name, as an absolute path does"
	case len(name) > longestName:
		return "it has a name that is too long"
	case strings.ContainsRune(name, 0):
		return "it has a zero byte"
	}
	for _, part := range strings.Split(name, `\`) {
		switch trimmed := strings.TrimRight(plain(part), " "); {
		case trimmed == "." || trimmed == "..":
			return "it leads out of its directory"
		case isDotGit(part):
			return "it leads into git's own files"
		}
	}
	return ""
}

// isDotGit says whether a file system might take a name for .git.
func isDotGit(name string) bool {
	name = bare(name)
	return strings.EqualFold(name, ".git") || isShort(name, "git~")
}

// isGitmodules says the same of .gitmodules.
func isGitmodules(name string) bool {
	name = bare(name)
	return strings.EqualFold(name, ".gitmodules") || isShort(name, "gitmod~") || isShort(name, "gi7eba~")
}

// isShort says whether a name is a short one that NTFS may have made up.
func isShort(name, prefix string) bool {
	return hasFoldedPrefix(name, prefix) && len(name) == len(prefix)+1 && name[len(prefix)] >= '0' && name[len(prefix)] <= '9'
}

func hasFoldedPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// bare is a name without what file systems do not see in it: a stream, dots and
// spaces at the end, invisible characters.
func bare(name string) string {
	name, _, _ = strings.Cut(name, ":")
	return strings.TrimRight(plain(name), ". ")
}

// plain is a name without the characters that HFS+, or Linux in a directory that
// folds case, ignores.
func plain(name string) string {
	if strings.IndexFunc(name, ignored) < 0 {
		return name
	}
	var kept strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if !ignored(r) {
			kept.WriteString(name[:n]) // as it was, valid or not
		}
		name = name[n:]
	}
	return kept.String()
}

// ignored says whether a character is one that Unicode has for ignoring
// (Default_Ignorable_Code_Point), which has all that HFS+ ignores.
func ignored(r rune) bool {
	return unicode.In(r, ignorable, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// ignorable are those that no table of package unicode's has.
var ignorable = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0xad, 0xad, 1}, {0x61c, 0x61c, 1}, {0x180e, 0x180e, 1}, {0x200b, 0x200f, 1}, {0x202a, 0x202e, 1}, {0x2060, 0x206f, 1}, {0xfeff, 0xfeff, 1},
	},
	R32:         []unicode.Range32{{0x1bca0, 0x1bca3, 1}, {0x1d173, 0x1d17a, 1}, {0xe0000, 0xe0fff, 1}},
	LatinOffset: 1,
}
