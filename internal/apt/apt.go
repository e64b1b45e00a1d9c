// Package apt reads and downloads Debian packages through the host's own apt
// configuration: its sources, keys, proxy and credentials.
//
// It never installs anything, never writes to apt's own directories, and
// needs no root. What the packages are for is the caller's business.
package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"
)

// Client runs the host's apt with state of its own in a private directory.
// It reads the host's package lists until Update fetches fresh ones.
type Client struct {
	dir     string
	conf    string
	env     []string
	release string // the file that says what system the host is

	incomplete error // why Update could not fetch all lists
}

// Installed says whether apt is the host's package manager.
func Installed() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil
}

// Open makes a client with its state in dir, which exists and is private to
// it. env is more of the environment that apt runs in, KEY=VALUE: the proxies of
// who asks. A host whose package manager is not apt is banger.Unavailable.
func Open(dir string, env []string) (*Client, error) {
	if !Installed() {
		return nil, banger.Errorf(banger.Unavailable, "cannot use the host's package sources: apt-get is not installed here")
	}
	dir, err := filepath.Abs(dir) // apt is run in other directories
	if err != nil {
		return nil, err
	}
	c := &Client{dir: dir, conf: filepath.Join(dir, "apt.conf"), env: env, release: "/etc/os-release"}
	for _, sub := range []string{"cache/archives/partial", "state/lists/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	return c, c.configure("")
}

// configure writes the file apt reads after the host's own configuration.
// Hooks of the host are dropped: they would act on the host's caches.
func (c *Client) configure(extra string) error {
	conf := fmt.Sprintf(`Dir::Cache %q;
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
`, filepath.Join(c.dir, "cache"))
	return os.WriteFile(c.conf, []byte(conf+extra), 0o644)
}

// Update fetches the package lists of the host's sources into the client's
// own state, which it reads from then on. A source that cannot be reached is
// no error until a package is wanted that the others do not have.
func (c *Client) Update(ctx context.Context) error {
	extra := fmt.Sprintf("Dir::State::lists %q;\n", filepath.Join(c.dir, "state/lists"))
	if err := c.configure(extra); err != nil {
		return err
	}
	_, c.incomplete = c.run(ctx, c.dir, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
	return ctx.Err()
}

// Package is one version of a package in the host's sources.
type Package struct {
	Name    string
	Version string
	Depends string
	SHA256  string
	File    string // its file name
}

// Candidate is the version of the package apt would install. One that no
// source has is banger.NotFound; where a source could not be asked, that is
// banger.Unavailable.
func (c *Client) Candidate(ctx context.Context, name string) (Package, error) {
	out, err := c.run(ctx, c.dir, "apt-cache", "show", "--no-all-versions", name)
	fields := firstStanza(out)
	p := Package{
		Name: fields["Package"], Version: fields["Version"], Depends: fields["Depends"],
		SHA256: fields["SHA256"], File: filepath.Base(fields["Filename"]),
	}
	if p.Name == "" || p.SHA256 == "" {
		if ctx.Err() != nil {
			return p, ctx.Err()
		}
		if c.incomplete != nil {
			return p, banger.Errorf(banger.Unavailable, "the host's package sources cannot be reached for %s: %w", name, c.incomplete).
				Hint("sudo apt-get update")
		}
		return p, banger.Errorf(banger.NotFound, "there is no package %s in the host's package sources%s", name, reason(err))
	}
	return p, nil
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// Download fetches the package into dir and gives its path; apt checks it
// against the signed lists. A file that is there with the right content is
// used as it is.
func (c *Client) Download(ctx context.Context, p Package, dir string) (string, error) {
	path := filepath.Join(dir, p.File)
	if sum, err := artifact.SHA256(ctx, path); err == nil && sum == p.SHA256 {
		return path, nil
	}
	scratch, err := artifact.NewScratch(dir, "deb")
	if err != nil {
		return "", err
	}
	defer scratch.Close()
	tmp := scratch.Dir
	if _, err := c.run(ctx, tmp, "apt-get", "-q", "download", p.Name+"="+p.Version); err != nil {
		return "", banger.Wrap(err, "cannot download the package %s", p.Name)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", banger.Errorf(banger.Unavailable, "cannot download the package %s: apt-get left %d files", p.Name, len(debs))
	}
	sum, err := artifact.SHA256(ctx, debs[0])
	if err != nil {
		return "", err
	}
	if sum != p.SHA256 {
		return "", banger.Errorf(banger.Unavailable, "cannot download the package %s: its digest is %s instead of %s", p.Name, sum, p.SHA256)
	}
	return path, artifact.Rename(debs[0], path)
}

// Unpack extracts a package's files into dir, without installing it.
func Unpack(ctx context.Context, deb, dir string) error {
	c := &Client{}
	_, err := c.run(ctx, "", "dpkg-deb", "--extract", deb, dir)
	return banger.Wrap(err, "cannot unpack %s", deb)
}

// run gives the standard output of an apt command; what it wrote to standard
// error becomes the error.
func (c *Client) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	if c.conf != "" {
		args = append([]string{"-c", c.conf}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), c.env...), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return out, banger.Errorf(banger.Cancelled, "%s was cancelled: %w", name, ctx.Err())
	case errors.Is(err, exec.ErrNotFound):
		return out, banger.Errorf(banger.Unavailable, "cannot run %s: it is not installed here", name)
	}
	return out, banger.Errorf(banger.Unavailable, "%s failed: %s", name, lastErrors(stderr.String(), err))
}

// lastErrors are apt's error lines, or else all it said.
func lastErrors(stderr string, err error) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if rest, ok := strings.CutPrefix(line, "E: "); ok {
			lines = append(lines, strings.TrimSpace(rest))
		}
	}
	switch {
	case len(lines) > 0:
		return strings.Join(lines, "; ")
	case strings.TrimSpace(stderr) != "":
		return strings.TrimSpace(stderr)
	}
	return err.Error()
}

// firstStanza reads the fields of the first paragraph of a control file.
func firstStanza(b []byte) map[string]string {
	for _, fields := range stanzas(b) {
		return fields
	}
	return nil
}

// stanzas reads the paragraphs of a control file; continuation lines are
// joined to their field with newlines.
func stanzas(b []byte) []map[string]string {
	var all []map[string]string
	var fields map[string]string
	field := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			fields = nil
		case line[0] == ' ' || line[0] == '\t':
			if fields != nil {
				fields[field] += "\n" + strings.TrimSpace(line)
			}
		default:
			key, value, _ := strings.Cut(line, ":")
			if fields == nil {
				fields = map[string]string{}
				all = append(all, fields)
			}
			field = key
			fields[field] = strings.TrimSpace(value)
		}
	}
	return all
}
