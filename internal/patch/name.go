package patch

import (
	"strings"
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

// bare is a name without what NTFS and HFS+ do not see in it: a stream, dots and
// spaces at the end, invisible characters.
func bare(name string) string {
	name, _, _ = strings.Cut(name, ":")
	return strings.TrimRight(plain(name), ". ")
}

// plain is a name without the characters that HFS+ ignores.
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

func ignored(r rune) bool {
	return r >= 0x200c && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x206a && r <= 0x206f || r == 0xfeff
}
