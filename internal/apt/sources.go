package apt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// source is one suite of one archive.
type source struct {
	uri, suite string
	components []string
	options    map[string]string // Signed-By and Trusted, as the host has them
}

// DebianSources gives the host's sources of one Debian release, its updates
// and its security updates, in the deb822 form. What comes from elsewhere is
// left out: it is Debian's if its signed Release file says so, so mirrors
// count. It is empty for a host that has none. Where they may only be out of
// reach, that is banger.Unavailable.
func (c *Client) DebianSources(ctx context.Context, codename string) (string, error) {
	sources, err := c.debianSources(ctx, codename)
	if err == nil && len(sources) == 0 {
		// The host may have no package lists, and what a source is stands there.
		if err = c.Update(ctx); err == nil {
			sources, err = c.debianSources(ctx, codename)
		}
	}
	if err == nil && len(sources) == 0 && c.incomplete != nil && (c.runs(codename) || c.reachedNone()) {
		err = banger.Errorf(banger.Unavailable, "the host's package sources cannot be reached: %w", c.incomplete).Hint("sudo apt-get update")
	}
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range sources {
		b.WriteString(s.deb822())
	}
	return b.String(), nil
}

// runs says whether the host is that release of Debian, and so has sources of it.
func (c *Client) runs(codename string) bool {
	release, _ := os.ReadFile(c.release)
	for line := range strings.Lines(string(release)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key == "VERSION_CODENAME" {
			return strings.Trim(value, `"'`) == codename
		}
	}
	return false
}

// reachedNone says whether Update fetched nothing at all.
func (c *Client) reachedNone() bool {
	fetched, _ := filepath.Glob(filepath.Join(c.dir, "state/lists/*Release"))
	return len(fetched) == 0
}

func (c *Client) debianSources(ctx context.Context, codename string) ([]*source, error) {
	out, err := c.run(ctx, c.dir, "apt-get", "indextargets", "Identifier: Packages")
	if err != nil {
		return nil, err
	}
	var sources []*source
	for _, t := range stanzas(out) {
		if t["Origin"] != "Debian" || !ofRelease(t["Codename"], codename) || t["Architecture"] != "amd64" {
			continue
		}
		i := slices.IndexFunc(sources, func(s *source) bool { return s.uri == t["Repo-URI"] && s.suite == t["Release"] })
		if i < 0 {
			i = len(sources)
			file, _, _ := cutLast(t["Sourcesentry"], ":")
			sources = append(sources, &source{
				uri: t["Repo-URI"], suite: t["Release"],
				options: sourceOptions(file, t["Repo-URI"], t["Release"]),
			})
		}
		if !slices.Contains(sources[i].components, t["Component"]) {
			sources[i].components = append(sources[i].components, t["Component"])
		}
	}
	return sources, nil
}

func ofRelease(suite, codename string) bool {
	return suite == codename || suite == codename+"-updates" || suite == codename+"-security"
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (s *source) deb822() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", s.uri, s.suite, strings.Join(s.components, " "))
	for _, key := range []string{"Signed-By", "Trusted"} {
		if v := s.options[key]; v != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, strings.ReplaceAll(v, "\n", "\n "))
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// sourceOptions finds how the host trusts a source. apt tells the file of a
// source but not this.
func sourceOptions(file, uri, suite string) map[string]string {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	has := func(list, want string) bool {
		return slices.ContainsFunc(strings.Fields(list), func(s string) bool {
			return strings.TrimSuffix(s, "/") == strings.TrimSuffix(want, "/")
		})
	}
	if filepath.Ext(file) == ".sources" {
		for _, fields := range stanzas(content) {
			if has(fields["URIs"], uri) && has(fields["Suites"], suite) {
				return fields
			}
		}
		return nil
	}
	for line := range strings.Lines(string(content)) {
		if rest, options := cutOptions(line); has(rest, uri) && has(rest, suite) {
			return options
		}
	}
	return nil
}

// cutOptions takes the [key=value …] out of a one-line source.
func cutOptions(line string) (rest string, options map[string]string) {
	line, _, _ = strings.Cut(line, "#")
	before, after, found := strings.Cut(line, "[")
	inside, after, closed := strings.Cut(after, "]")
	if !found || !closed {
		return line, nil
	}
	options = map[string]string{}
	for option := range strings.FieldsSeq(inside) {
		key, value, _ := strings.Cut(option, "=")
		switch strings.ToLower(key) {
		case "signed-by":
			options["Signed-By"] = strings.ReplaceAll(value, ",", " ")
		case "trusted":
			options["Trusted"] = value
		}
	}
	return before + after, options
}

// AcquireOptions are the host's settings for how packages are fetched
// (proxies, retries, dates), as lines of configuration.
func (c *Client) AcquireOptions(ctx context.Context) ([]string, error) {
	out, err := c.run(ctx, c.dir, "apt-config", "dump", "--no-empty", "Acquire")
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if carriesOver(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}

func carriesOver(line string) bool {
	key, _, _ := strings.Cut(strings.ToLower(line), " ")
	for _, prefix := range []string{
		"acquire::http", "acquire::retries", "acquire::check-valid-until", "acquire::check-date",
		"acquire::max-futuretime", "acquire::forceipv",
	} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
