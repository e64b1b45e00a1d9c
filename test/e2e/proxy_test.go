package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheProxyOfTheHostIsTheGuests has a guest ask a name that nobody has: what
// comes back can only be the proxy's.
func TestTheProxyOfTheHostIsTheGuests(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		_, _ = io.WriteString(out, "proxied "+in.URL.String())
	}))
	t.Cleanup(proxy.Close)
	w, closed := borrowedWorld(t, "proxy"), serve(t)
	config := filepath.Join(w.Home, ".config/banger/config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) string {
		return viaProxy(t, w, proxy.URL, append(args, "--", "python3", "-c", `import urllib.request
try: print(urllib.request.urlopen("http://nobody.example.invalid/x", timeout=30).read().decode())
except Exception as e: print("no:", e)`)...)
	}
	const want = "proxied http://nobody.example.invalid/x"
	w.start(t, "behind", "--nat")
	if got := ask("exec", "behind"); !strings.HasPrefix(got, "no:") {
		t.Errorf("by default: %q", got)
	}
	if err := os.WriteFile(config, []byte("inherit_proxy = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask("exec", "behind"); got != want {
		t.Errorf("exec: %q", got)
	}
	if got := ask("run", "--rm", "--nat"); got != want {
		t.Errorf("run: %q", got)
	}
	if got := viaProxy(t, w, proxy.URL, "ssh", "behind", "echo $http_proxy"); got != strings.Replace(proxy.URL, "127.0.0.1", "host.vm", 1) {
		t.Errorf("ssh: %q", got)
	}
	// The proxy and nothing else of the host's.
	r := w.Banger("exec", "behind", "--", "python3", "-c", fmt.Sprintf("import socket; socket.create_connection(('host.vm', %d), 10)", closed.port))
	if r.Status == 0 {
		t.Error("another port of the host is open")
	}
	w.must(t, "vm", "set", "behind", "--no-nat")
	if got := ask("exec", "behind"); !strings.HasPrefix(got, "no:") {
		t.Errorf("without the internet: %q", got)
	}
}

// viaProxy runs banger where the environment names a proxy, and gives its output.
func viaProxy(t *testing.T, w home, proxy string, args ...string) string {
	t.Helper()
	cmd := w.Command(args...)
	cmd.Env = append(cmd.Environ(), "http_proxy="+proxy)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}
