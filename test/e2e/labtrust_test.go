package e2e

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownAuthorities is where an administrator puts certificates. Inside the lab nothing
// else is in it.
const ownAuthorities = "/usr/local/share/ca-certificates"

// trust asks a server whose certificate nobody signed but an authority of the host's
// administrator.
func (l *networkLab) trust(t *testing.T) {
	if _, err := os.Stat(ownAuthorities); err != nil {
		t.Logf("this host has no %s", ownAuthorities)
		return
	}
	if err := unix.Mount("none", ownAuthorities, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", "127.0.0.1:443"); err != nil {
		t.Fatal(err)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	for name, text := range map[string][]byte{
		"ours.crt":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		"broken.crt": []byte("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"),
	} {
		if err := os.WriteFile(filepath.Join(ownAuthorities, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(l.Home, ".config/banger/config.toml")
	base, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	inherit := func(value string) {
		t.Helper()
		if err := os.WriteFile(config, append([]byte("inherit_ca = "+value+"\n"), base...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The certificate that httptest has is also for this name.
	trusts := func(vm string) bool {
		t.Helper()
		r := l.Banger("exec", vm, "--", "python3", "-c", `import socket, ssl
try: ssl.create_default_context().wrap_socket(socket.create_connection(("host.vm", 443), 30), server_hostname="example.com")
except ssl.SSLCertVerificationError: print("no")
else: print("yes")`)
		if r.Status != 0 {
			t.Fatalf("cannot ask: %s", r.Stderr)
		}
		return strings.TrimSpace(r.Stdout) == "yes"
	}
	inherit("false")
	l.must(t, "vm", "set", "other", "--allow", "host.vm:443")
	if trusts("other") {
		t.Error("a guest trusts the host's own authorities by default")
	}
	inherit("true")
	l.must(t, "vm", "suspend", "other")
	if r := l.Banger("vm", "start", "other"); r.Status != 0 || strings.Count(r.Stderr, "broken.crt") != 1 {
		t.Errorf("the broken file is not named once: %d, %s", r.Status, r.Stderr)
	}
	if !trusts("other") {
		t.Error("a guest does not trust the host's own authorities")
	}
	inherit("false")
	l.must(t, "vm", "fork", "other")
	if trusts("other-1") {
		t.Error("a fork still trusts the host's own authorities")
	}
}
