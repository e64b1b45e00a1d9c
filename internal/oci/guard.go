package oci

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"banger"
)

// guard is the only way to a registry, and to where it sends us: for a token,
// or for a layer at another host. A registry is not trusted with where that is.
type guard struct {
	registry string // host, with its port where it has one
	proxied  func(*url.URL) (*url.URL, error)
	direct   *http.Transport
}

func newGuard(registry string, access banger.Access) *guard {
	proxies := httpproxy.Config{
		HTTPProxy: either(access, "http_proxy", "HTTP_PROXY"), HTTPSProxy: either(access, "https_proxy", "HTTPS_PROXY"),
		NoProxy: either(access, "no_proxy", "NO_PROXY"),
	}
	g := &guard{registry: registry, proxied: proxies.ProxyFunc()}
	g.direct = &http.Transport{
		Proxy:                 func(r *http.Request) (*url.URL, error) { return g.proxied(r.URL) },
		DialContext:           g.dial,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: silence,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
	}
	return g
}

func either(access banger.Access, a, b string) string {
	if v := access.Getenv(a); v != "" {
		return v
	}
	return access.Getenv(b)
}

// plain says whether the registry may be spoken to without TLS: only on this
// machine.
func (g *guard) plain() bool { return loopback(hostOf(g.registry)) }

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := g.check(r.URL); err != nil {
		return nil, err
	}
	resp, err := g.direct.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if r.Context().Value(long{}) == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxManifest}
	}
	return resp, nil
}

// check refuses an address a registry has no business to send us to.
func (g *guard) check(u *url.URL) error {
	own := u.Host == g.registry
	switch {
	case u.Scheme == "http" && own && g.plain(), u.Scheme == "https" && own:
		return nil
	case u.Scheme == "http" && own:
		return banger.Errorf(banger.Unavailable, "%s speaks no TLS, and only a registry on this machine may do without", u.Host)
	case u.Scheme != "https":
		return banger.Errorf(banger.BadRequest, "%s sends us to %s://%s, which is not https", g.registry, u.Scheme, u.Host)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !public(ip) {
		return g.misled(u.Host)
	}
	return nil
}

func (g *guard) misled(where string) error {
	return banger.Errorf(banger.BadRequest, "%s sends us to %s, which is not on the internet", g.registry, where)
}

// dial connects. Names are looked up here, so it is here that a name is seen
// to lead where a registry must not send us.
func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	if !g.trusted(addr) {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err == nil && !public(ap.Addr()) {
				err = g.misled(addr)
			}
			return err
		}
	}
	return d.DialContext(ctx, network, addr)
}

// trusted says whether a person named this address: as the registry, or as a
// proxy.
func (g *guard) trusted(addr string) bool {
	for scheme, port := range map[string]string{"https": "443", "http": "80"} {
		proxy, err := g.proxied(&url.URL{Scheme: scheme, Host: "example.com"})
		if err == nil && proxy != nil && addr == withPort(proxy.Host, map[string]string{"https": "443", "socks5": "1080"}[proxy.Scheme], "80") {
			return true
		}
		if addr == withPort(g.registry, port, "") {
			return true
		}
	}
	return false
}

func withPort(host, port, fallback string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	if port == "" {
		port = fallback
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
}

func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate()
}

// boundedBody ends an answer that should be short.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, banger.Errorf(banger.BadRequest, "a registry's answer has more than %d bytes", maxManifest)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
