package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// trust is the certificates that the host has this guest trust, at the end of the
// bundles that its programs read.
type trust struct {
	root    string // of the image; "" but in tests
	known   bool   // text is what the disk has
	text    string
	bundles map[string]fileVersion // as they were written
}

// bundles are the files in which distributions keep the authorities they trust, the
// likeliest first. Some are links to others.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch, Gentoo
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora and its kin
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // the same
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/ssl/cert.pem",                                 // Alpine, and the libraries of others
}

// trustFile has what was added alone: for programs that take a file besides what they
// come with, and for us to know that something was.
const trustFile = "/etc/ssl/banger-host-ca.pem"

const (
	trustBegin = "# From here: what the host trusts, written by banger at each start (inherit_ca).\n"
	trustEnd   = "# To here.\n"
	maxBundle  = 8 << 20
)

// apply has the guest trust these certificates, in PEM, and no others of the host's.
func (t *trust) apply(text string) error {
	own := t.root + trustFile
	if !t.known {
		have, err := os.ReadFile(own)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		t.known, t.text = true, string(have)
	}
	if text == t.text && t.unchanged() {
		return nil
	}
	if text != "" { // first: what it is not written down that it was added is not taken out
		if err := writeIfOther(own, text, 0o644); err != nil {
			return err
		}
	}
	written := map[string]fileVersion{}
	for _, file := range t.files(text != "") {
		if err := rewriteBundle(file, text); err != nil {
			return fmt.Errorf("%s: %w", file, reason(err))
		}
		written[file] = versionOf(file)
	}
	if text == "" {
		if err := os.Remove(own); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	t.text, t.bundles = text, written
	return nil
}

// unchanged says whether the bundles are as we left them. One that we have not seen
// is not, unless there is nothing to be in it.
func (t *trust) unchanged() bool {
	if t.text == "" {
		return true
	}
	for file, then := range t.bundles {
		if versionOf(file) != then {
			return false
		}
	}
	return len(t.bundles) > 0
}

// files are the bundles that the image has, each once; without any, the one that is to
// be made.
func (t *trust) files(make bool) (files []string) {
	for _, b := range bundles {
		file, err := filepath.EvalSymlinks(t.root + b)
		if err == nil && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	if len(files) == 0 && make {
		files = []string{t.root + bundles[0]}
	}
	return files
}

// rewriteBundle puts text at a bundle's end, in the place of what we put there before.
// It writes in the file that is there and only where it changes: were it replaced, a power
// cut could leave the guest without any authority.
func rewriteBundle(file, text string) error {
	old, err := readBundle(file)
	if errors.Is(err, fs.ErrNotExist) {
		return replaceFile(file, []byte(withTrust("", text)), 0o644)
	} else if err != nil {
		return err
	}
	now := withTrust(old, text)
	if now == old {
		return nil
	}
	if now == "" {
		return os.Remove(file) // which we made
	}
	same := 0
	for same < min(len(old), len(now)) && old[same] == now[same] {
		same++
	}
	f, err := os.OpenFile(file, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(now[same:]), int64(same))
	return errors.Join(err, f.Truncate(int64(len(now))), f.Close())
}

func readBundle(file string) (string, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > maxBundle:
		return "", errors.New("it is no file, or a very large one")
	}
	text, err := os.ReadFile(file)
	return string(text), err
}

// withTrust is a bundle with text at its end. What we put there before is taken out,
// whole or, after a power cut, in part.
func withTrust(old, text string) string {
	if before, after, found := strings.Cut(old, trustBegin); found {
		_, after, _ = strings.Cut(after, trustEnd)
		old = before + after
	}
	if text == "" {
		return old
	}
	if old != "" && !strings.HasSuffix(old, "\n") {
		old += "\n"
	}
	return old + trustBegin + text + trustEnd
}

// trustEnv leads programs to these certificates that do not look into the bundle by
// themselves. The image's own variables, and those of a command, win.
func trustEnv(root, text string) []string {
	if text == "" {
		return nil
	}
	env := []string{"NODE_EXTRA_CA_CERTS=" + trustFile}
	for _, b := range bundles {
		if exists(root + b) {
			return append(env, "SSL_CERT_FILE="+b)
		}
	}
	return env
}
