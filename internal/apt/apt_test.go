package apt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

func TestStanzasJoinContinuationsAndSkipComments(t *testing.T) {
	got := stanzas([]byte("# top\nTypes: deb\n# inside\nURIs: http://a/x\nSigned-By:\n -----BEGIN\n .\n abc\n\n\nTypes: deb\nSuites: s"))
	if len(got) != 2 || got[0]["URIs"] != "http://a/x" || got[0]["Signed-By"] != "\n-----BEGIN\n.\nabc" || got[1]["Suites"] != "s" {
		t.Errorf("%q", got)
	}
}

func TestSourceOptionsAreTheHostsForThatSource(t *testing.T) {
	dir := t.TempDir()
	sources, list := filepath.Join(dir, "a.sources"), filepath.Join(dir, "b.list")
	err := errors.Join(
		os.WriteFile(sources, []byte("URIs: http://other/debian\nSuites: bookworm\nSigned-By: /other.gpg\n\nURIs: http://x http://m/debian\nSuites: bookworm bookworm-updates\nSigned-By: /right.gpg\n"), 0o644),
		os.WriteFile(list, []byte("# deb [signed-by=/no.gpg] http://m/debian bookworm main\ndeb [arch=amd64 signed-by=/one.gpg,/two.gpg trusted=yes] http://m/debian/ bookworm main\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, suite, signedBy, trusted string }{
		{sources, "bookworm-updates", "/right.gpg", ""},
		{list, "bookworm", "/one.gpg /two.gpg", "yes"},
		{list, "bookworm-security", "", ""},
		{filepath.Join(dir, "gone.list"), "bookworm", "", ""},
	} {
		got := sourceOptions(c.file, "http://m/debian/", c.suite)
		if got["Signed-By"] != c.signedBy || got["Trusted"] != c.trusted {
			t.Errorf("%s %s: %q", filepath.Base(c.file), c.suite, got)
		}
	}
}

func TestInlineKeySurvivesInDeb822(t *testing.T) {
	key := "\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n.\nabc\n-----END PGP PUBLIC KEY BLOCK-----"
	s := source{uri: "http://m/debian/", suite: "bookworm", components: []string{"main", "contrib"}, options: map[string]string{"Signed-By": key}}
	back := stanzas([]byte(s.deb822()))
	if len(back) != 1 || back[0]["Signed-By"] != key || back[0]["Components"] != "main contrib" {
		t.Errorf("%q", back)
	}
}

func TestBackportsAndOtherReleasesAreNotOfTheRelease(t *testing.T) {
	for suite, want := range map[string]bool{
		"bookworm": true, "bookworm-updates": true, "bookworm-security": true,
		"bookworm-backports": false, "trixie": false, "": false,
	} {
		if ofRelease(suite, "bookworm") != want {
			t.Errorf("%q: %v", suite, !want)
		}
	}
}

func TestOnlyHowToFetchCarriesOver(t *testing.T) {
	for line, want := range map[string]bool{
		`Acquire::http::Proxy "http://p:3128";`:          true,
		`Acquire::Check-Valid-Until "false";`:            true,
		`Acquire::IndexTargets::deb::DEP-11::X "y";`:     false,
		`Acquire::AllowInsecureRepositories "1";`:        false,
		`acquire::https::deb.example.com::Verify-Peer 1`: true,
	} {
		if carriesOver(line) != want {
			t.Errorf("%s: %v", line, !want)
		}
	}
}

func openHost(t *testing.T) *Client {
	t.Helper()
	if testing.Short() {
		t.Skip("asks this host's package sources; run without -short")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt is not this host's package manager")
	}
	c, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPackagesAreFoundInTheHostsSources(t *testing.T) {
	c := openHost(t)
	p, err := c.Candidate(context.Background(), "base-files")
	if err != nil || p.Name != "base-files" || len(p.SHA256) != 64 || !strings.HasSuffix(p.File, ".deb") {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Candidate(context.Background(), "no-such-package-at-all"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("error %v", err)
	}
}

func TestDamagedDownloadIsFetchedAgain(t *testing.T) {
	c, dir := openHost(t), t.TempDir()
	p, err := c.Candidate(context.Background(), "base-files")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, p.File), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	deb, err := c.Download(context.Background(), p, dir)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := Unpack(context.Background(), deb, root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/debian_version")); err != nil {
		t.Error(err)
	}
}

func TestListsOfItsOwnServeWhereTheHostHasNone(t *testing.T) {
	c := openHost(t)
	if err := c.configure("Dir::State::lists \"" + t.TempDir() + "\";\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Candidate(context.Background(), "base-files"); banger.CodeOf(err) != banger.NotFound {
		t.Fatalf("without lists: %v", err)
	}
	if err := c.Update(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Candidate(context.Background(), "base-files"); err != nil {
		t.Error(err)
	}
}

// onlySource has apt know no archive but one, and gives the setting for how it
// is reached.
func onlySource(t *testing.T, uri, reached string) {
	t.Helper()
	dir := t.TempDir()
	list, conf := filepath.Join(dir, "sources.list"), filepath.Join(dir, "apt.conf")
	err := errors.Join(
		os.WriteFile(list, []byte("deb [trusted=yes] "+uri+" nowhere main\n"), 0o644),
		os.WriteFile(conf, []byte("Dir::Etc::sourcelist \""+list+"\";\nDir::Etc::sourceparts \"/dev/null\";\nAcquire::Retries \"0\";\n"+reached+"\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", conf)
}

func TestSourcesThatCannotBeReachedAreNotTakenForEmptyOnes(t *testing.T) {
	c := openHost(t)
	onlySource(t, "http://127.0.0.1:1/", `Acquire::http::Proxy "DIRECT";`)
	if err := c.Update(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Candidate(context.Background(), "base-files")
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
	if _, err := c.DebianSources(context.Background(), "bookworm"); banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("as if it had none: %v", err)
	}
}

// otherSource makes an archive of another system on this machine.
func otherSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	release := fmt.Sprintf("Origin: Other\nCodename: other\nDate: %s\nSHA256:\n %x 0 Packages\n", time.Now().UTC().Format(time.RFC1123), sha256.Sum256(nil))
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "Release"), []byte(release), 0o644),
		os.WriteFile(filepath.Join(dir, "Packages"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestASourceOutOfReachMakesNoBookwormOfAnotherSystem(t *testing.T) {
	for system, want := range map[string]banger.Code{
		"ID=ubuntu\nVERSION_CODENAME=noble\n":        "",
		"ID=debian\nVERSION_CODENAME=\"bookworm\"\n": banger.Unavailable,
	} {
		c := openHost(t)
		c.release = filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(c.release, []byte(system), 0o644); err != nil {
			t.Fatal(err)
		}
		onlySource(t, "file:"+otherSource(t)+" ./\ndeb [trusted=yes] http://127.0.0.1:1/", `Acquire::http::Proxy "DIRECT";`)
		if sources, err := c.DebianSources(context.Background(), "bookworm"); sources != "" || banger.CodeOf(err) != want {
			t.Errorf("%q: %q, %v", system, sources, err)
		}
		if c.incomplete == nil {
			t.Error("all was in reach")
		}
	}
}

func TestAptGoesThroughTheProxiesOfWhoAsks(t *testing.T) {
	c := openHost(t)
	c.env = []string{"http_proxy=http://127.0.0.1:2"}
	onlySource(t, "http://127.0.0.1:1/", "#clear Acquire::http::Proxy;")
	if err := c.Update(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c.incomplete == nil || !strings.Contains(c.incomplete.Error(), "127.0.0.1:2") {
		t.Errorf("the proxy was not asked: %v", c.incomplete)
	}
}
