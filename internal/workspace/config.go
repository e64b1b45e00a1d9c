package workspace

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// config is a repository's configuration as git sees it, the user's and the
// system's included.
type config struct {
	all   map[string]string // the last value of each key
	local map[string]string // of the repository itself
	user  map[string]string // of the user and the system
}

func readConfig(ctx context.Context, g git) (config, error) {
	c := config{map[string]string{}, map[string]string{}, map[string]string{}}
	out, err := g.list(ctx, "config", "--list", "-z", "--show-scope")
	for i := 0; i+1 < len(out); i += 2 {
		key, value, _ := strings.Cut(out[i+1], "\n")
		c.all[key] = value
		if out[i] == "local" || out[i] == "worktree" {
			c.local[key] = value
		} else {
			c.user[key] = value
		}
	}
	return c, err
}

// filtersOff are settings under which git runs no filter of the user's, such as
// git-lfs, which would write into the repository by the way.
func (c config) filtersOff() []string {
	var off []string
	for key := range c.all {
		name, ok := strings.CutPrefix(key, "filter.")
		if dot := strings.LastIndex(name, "."); ok && dot > 0 {
			switch name[dot:] {
			case ".clean", ".process", ".smudge":
				off = append(off, key+"=")
			case ".required":
				off = append(off, key+"=false")
			}
		}
	}
	slices.Sort(off)
	return off
}

// sparse says whether a sparse checkout leaves files out.
func (c config) sparse() bool {
	value, set := c.all["core.sparsecheckout"]
	return set && !slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(value))
}

// travelling are the keys that say how files and objects are to be read.
var travelling = []string{
	"core.autocrlf", "core.eol", "core.filemode", "core.symlinks", "core.precomposeunicode",
	"core.sparsecheckout", "core.sparsecheckoutcone",
}

// forGuest is the configuration of the clone. More than this does not travel.
func (c config) forGuest(format, branch string, worktree string) string {
	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = " + formatVersion(format) + "\n\tbare = false\n")
	// The index comes from another machine: what it knows of files are their
	// sizes and times, not their inodes.
	b.WriteString("\tcheckStat = minimal\n\ttrustctime = false\n")
	for _, key := range travelling {
		if value, ok := c.all[key]; ok {
			setting(&b, strings.TrimPrefix(key, "core."), value)
		}
	}
	if worktree != "" {
		setting(&b, "worktree", worktree)
	}
	if format != "sha1" {
		b.WriteString("[extensions]\n")
		setting(&b, "objectFormat", format)
	}
	if origin := c.all["remote.origin.url"]; origin != "" {
		b.WriteString("[remote \"origin\"]\n")
		setting(&b, "url", withoutCredentials(origin))
		setting(&b, "fetch", "+refs/heads/*:refs/remotes/origin/*")
	}
	person(&b, c.local)
	if merge := c.local["branch."+branch+".merge"]; branch != "" && merge != "" {
		b.WriteString("[branch " + quoted(branch) + "]\n")
		setting(&b, "remote", "origin")
		setting(&b, "merge", merge)
	}
	for key, value := range c.local {
		if name, ok := strings.CutPrefix(key, "submodule."); ok && strings.HasSuffix(name, ".url") {
			b.WriteString("[submodule " + quoted(strings.TrimSuffix(name, ".url")) + "]\n\tactive = true\n")
			setting(&b, "url", withoutCredentials(value))
		}
	}
	return b.String()
}

// identity is the user's, for the guest's global configuration; "" for none.
func (c config) identity() string {
	var b strings.Builder
	person(&b, c.user)
	return b.String()
}

func person(b *strings.Builder, of map[string]string) {
	name, mail := of["user.name"], of["user.email"]
	if name == "" && mail == "" {
		return
	}
	b.WriteString("[user]\n")
	if name != "" {
		setting(b, "name", name)
	}
	if mail != "" {
		setting(b, "email", mail)
	}
}

func formatVersion(format string) string {
	if format == "sha1" {
		return "0"
	}
	return "1"
}

func setting(b *strings.Builder, key, value string) {
	fmt.Fprintf(b, "\t%s = %s\n", key, quoted(value))
}

// quoted is a value or a section's name as git's files have it.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// withoutCredentials is a remote's address with nothing in it that lets anybody
// in. The user of an ssh address is none. It reads what no parser of URLs would.
func withoutCredentials(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return address // host:path, or a path
	}
	authority, path, slash := strings.Cut(rest, "/")
	at := strings.LastIndex(authority, "@")
	if at < 0 {
		return address
	}
	user, _, _ := strings.Cut(authority[:at], ":")
	host := authority[at+1:]
	if scheme == "ssh" || strings.HasSuffix(scheme, "+ssh") {
		host = user + "@" + host
	}
	if slash {
		host += "/" + path
	}
	return scheme + "://" + host
}
