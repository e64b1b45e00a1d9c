package cli

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestProxiesAreWhereAGuestFindsThem(t *testing.T) {
	lookup := func(host string) ([]netip.Addr, error) {
		addr, ok := map[string]string{"localhost": "127.0.0.1", "proxy.lan": "10.1.2.3", "proxy.example.com": "198.51.100.7"}[host]
		if !ok {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr(addr)}, nil
	}
	for value, want := range map[string]struct{ there, rule string }{
		"http://127.0.0.1:3128":         {"http://host.vm:3128", "host.vm:3128"},
		"localhost:3128":                {"http://host.vm:3128", "host.vm:3128"},
		"http://me:secret@localhost:81": {"http://me:secret@host.vm:81", "host.vm:81"},
		"http://127.0.0.1":              {"http://host.vm:80", "host.vm:80"},
		"socks5h://127.0.0.1":           {"socks5h://host.vm:1080", "host.vm:1080"},
		"http://proxy.lan:8080/":        {"http://10.1.2.3:8080/", "10.1.2.3:8080"},
		"http://192.168.1.1:8080":       {"http://192.168.1.1:8080", "192.168.1.1:8080"},
		"https://proxy.example.com":     {"https://proxy.example.com", ""},
	} {
		got, err := guestProxies([]string{"HTTPS_PROXY=" + value, "no_proxy=.corp,10.0.0.0/8"}, lookup)
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if env := []string{"HTTPS_PROXY=" + want.there, "no_proxy=.corp,10.0.0.0/8"}; !slices.Equal(got.env, env) {
			t.Errorf("%s: %q", value, got.env)
		}
		if rules := strings.Join(got.rules, " "); rules != want.rule {
			t.Errorf("%s opens %q, not %q", value, rules, want.rule)
		}
	}
	for _, value := range []string{"http://me:secret@[::1]:3128", "http://me:secret@127.0.0.2:3128", "http://me:secret@gone.example.com", "http://me:secret@%zz", "://secret"} {
		if _, err := guestProxies([]string{"http_proxy=" + value}, lookup); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "http_proxy") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestOnlyProxyVariablesAreInherited(t *testing.T) {
	got := proxyVariables([]string{"HTTP_PROXY=a", "https_proxy=b", "ALL_PROXY=c", "NO_PROXY=d", "http_proxy=", "PROXY=e", "HOME=/root"})
	if want := []string{"HTTP_PROXY=a", "https_proxy=b", "ALL_PROXY=c", "NO_PROXY=d"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
