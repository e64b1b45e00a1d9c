package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Programs as they are, in guests as they are.

// archives are the hosts of the host's package sources, with their ports.
func archives(t *testing.T) (hosts []string) {
	t.Helper()
	release, _ := os.ReadFile("/etc/os-release")
	if !strings.Contains(string(release), "VERSION_CODENAME=bookworm") {
		t.Skip("this host's package sources are of another release than the image's")
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages").Output()
	if err != nil {
		t.Skipf("this host has no package sources: %v", err)
	}
	seen := map[string]bool{}
	for line := range strings.FieldsSeq(string(out)) {
		u, err := url.Parse(line)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			t.Skipf("a package source of this host is no address of the web: %s", u.Scheme)
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		if at := net.JoinHostPort(u.Hostname(), port); !seen[at] {
			seen[at] = true
			c, err := net.DialTimeout("tcp", at, 10*time.Second)
			if err != nil {
				t.Skip("this host does not reach its package sources directly")
			}
			c.Close()
			hosts = append(hosts, at)
		}
	}
	if len(hosts) == 0 {
		t.Skip("this host has no package sources")
	}
	return hosts
}

// archiveRules let a guest reach them: by name, and by address where that is in
// a range that no name opens.
func archiveRules(t *testing.T, hosts []string) (flags []string) {
	t.Helper()
	for _, at := range hosts {
		host, port, _ := net.SplitHostPort(at)
		flags = append(flags, "--allow", at)
		addresses, err := net.LookupIP(host)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			if a.To4() != nil && a.IsPrivate() && a.String() != host {
				flags = append(flags, "--allow", net.JoinHostPort(a.String(), port))
			}
		}
	}
	return flags
}

// unpackSources gives a guest the host's package sources, without what is secret.
const unpackSources = `rm -rf /etc/apt/sources.list /etc/apt/sources.list.d && tar x -C /etc/apt && rm -f /etc/apt/apt.conf.d/docker-*`

// natRules are the flags of a VM that reaches everything, and the archives too
// where they are in a range that is refused.
func natRules(t *testing.T, hosts []string) (flags []string) {
	t.Helper()
	flags = []string{"--nat"}
	rules := archiveRules(t, hosts)
	for i := 1; i < len(rules); i += 2 {
		if net.ParseIP(strings.Split(rules[i], ":")[0]) != nil {
			flags = append(flags, "--allow", rules[i])
		}
	}
	return flags
}

// giveSources gives a guest the host's package sources.
func (w home) giveSources(t *testing.T, vm string) {
	t.Helper()
	var have []string
	for _, name := range []string{"sources.list", "sources.list.d", "apt.conf.d", "trusted.gpg.d", "keyrings"} {
		if _, err := os.Stat(filepath.Join("/etc/apt", name)); err == nil {
			have = append(have, name)
		}
	}
	packed := exec.Command("tar", append([]string{"c", "-C", "/etc/apt"}, have...)...)
	unpack := w.Command("exec", "-i", vm, "--", "sh", "-c", unpackSources)
	var err error
	if unpack.Stdin, err = packed.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := packed.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := unpack.CombinedOutput(); err != nil || packed.Wait() != nil {
		t.Fatalf("cannot give the guest the sources: %v\n%s", err, out)
	}
}

func TestAptInstallsFromTheHostsSources(t *testing.T) {
	t.Parallel()
	w, hosts := shared, archives(t)
	rules := archiveRules(t, hosts)
	w.start(t, "apt", natRules(t, hosts)...)
	w.giveSources(t, "apt")
	w.must(t, "exec", "apt", "--", "sh", "-c", "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends hello")
	if got := w.must(t, "exec", "apt", "--", "hello"); got != "Hello, world!" {
		t.Errorf("what was installed says %q", got)
	}
	// With what it needs and nothing else, and with nothing.
	w.must(t, append([]string{"vm", "set", "apt", "--no-nat", "--no-allow"}, rules...)...)
	w.must(t, "exec", "apt", "--", "sh", "-c", "cd /tmp && apt-get -q download hello && ls hello*.deb")
	w.must(t, "vm", "set", "apt", "--no-allow")
	r := w.Banger("exec", "apt", "--", "sh", "-c", "cd /tmp && rm -f *.deb && apt-get -q -o Acquire::Retries=0 download hello")
	if r.Status == 0 || !regexp.MustCompile(`(?m)^banger: network: refused .*--allow `).MatchString(r.Stderr) {
		t.Errorf("without a network: status %d\n%s", r.Status, r.Stderr)
	}
}

func TestGitClonesFromAServer(t *testing.T) {
	w, dir := shared, t.TempDir()
	repo := filepath.Join(dir, "repo")
	command(t, "git", "init", "-q", repo)
	if err := os.WriteFile(filepath.Join(repo, "file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "git", "-C", repo, "add", "file")
	command(t, "git", "-C", repo, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-qm", "One")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // as inetd does
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			daemon := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+dir)
			f, err := c.(*net.TCPConn).File()
			if err != nil {
				continue
			}
			daemon.Stdin, daemon.Stdout = f, f
			_ = daemon.Run()
			f.Close()
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	w.start(t, "git", "--allow", fmt.Sprintf("host.vm:%d", port))
	if got := w.must(t, "exec", "git", "--", "sh", "-c", fmt.Sprintf("git clone -q git://host.vm:%d/repo && cat repo/file", port)); got != "content" {
		t.Errorf("the clone has %q", got)
	}
}

// gibibyte is what goes each way.
const gibibyte = 1 << 30

// A GiB each way, which arrives as it was.
func TestAGiBGoesEachWayIntact(t *testing.T) {
	t.Parallel()
	came := make(chan string, 1)
	sent := sha256.New()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			sum := sha256.New()
			n, err := io.Copy(sum, r.Body)
			came <- fmt.Sprintf("%x %d %v", sum.Sum(nil), n, err)
			return
		}
		random := rand.NewChaCha8([32]byte{})
		_, _ = io.Copy(io.MultiWriter(out, sent), io.LimitReader(random, gibibyte))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	w := shared
	w.start(t, "big", "--allow", fmt.Sprintf("host.vm:%d", port))
	at := fmt.Sprintf("http://host.vm:%d/", port)
	began := time.Now()
	got := w.must(t, "exec", "big", "--", "sh", "-c", "curl -sSo /root/big "+at+" && sha256sum /root/big")
	want := fmt.Sprintf("%x", sent.Sum(nil))
	if !strings.HasPrefix(got, want+" ") {
		t.Errorf("the guest got %s, sent was %s", got, want)
	}
	t.Logf("to the guest's disk, with its sum: %v", time.Since(began))
	began = time.Now()
	w.must(t, "exec", "big", "--", "curl", "-sS", "-T", "/root/big", at)
	if got := <-came; got != fmt.Sprintf("%s %d <nil>", want, gibibyte) {
		t.Errorf("the host got %s, sent was %s", got, want)
	}
	t.Logf("and back: %v", time.Since(began))
}
