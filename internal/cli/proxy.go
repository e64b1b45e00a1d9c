package cli

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"banger"
	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
)

// inheritProxy has a command use the proxy of our environment. What -e says of it
// wins.
func (a *app) inheritProxy(ctx context.Context, vm api.VM, sh *shim.Client, request *guestwire.Exec) error {
	env, err := a.openProxies(ctx, vm, sh)
	request.Env = append(env, request.Env...)
	return err
}

// openProxies opens the proxies of our environment to a guest, where the configuration
// says so and the VM may reach the internet, and gives the variables that lead there.
func (a *app) openProxies(ctx context.Context, vm api.VM, sh *shim.Client) (env []string, err error) {
	own := proxyVariables(os.Environ())
	if !vm.Spec.NAT || len(own) == 0 {
		return nil, nil
	}
	dirs, err := paths.FromEnv()
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(dirs.ConfigFile())
	if err != nil || !cfg.InheritProxy {
		return nil, err
	}
	p, err := guestProxies(own, func(host string) ([]netip.Addr, error) { return net.DefaultResolver.LookupNetIP(ctx, "ip4", host) })
	if err == nil && len(p.rules) > 0 {
		err = sh.OpenProxy(ctx, p.rules)
	}
	if err != nil {
		return nil, banger.Wrap(err, "cannot let %s use the proxy of this environment (inherit_proxy)", vm.Name)
	}
	return p.env, nil
}

// proxyVariables picks those that say where the proxy is, as they are written.
func proxyVariables(environ []string) (own []string) {
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" && slices.Contains([]string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}, strings.ToLower(name)) {
			own = append(own, kv)
		}
	}
	return own
}

// proxies is a guest's environment, and the rules that what it names needs.
type proxies struct {
	env, rules []string
}

// guestProxies tells where the host's proxies are as a guest sees them: those at the
// host's 127.0.0.1 are at host.vm, and those whose name leads to a private address,
// which no name opens, at that.
func guestProxies(own []string, lookup func(host string) ([]netip.Addr, error)) (p proxies, err error) {
	for _, kv := range own {
		name, value, _ := strings.Cut(kv, "=")
		if strings.EqualFold(name, "no_proxy") {
			p.env = append(p.env, kv)
			continue
		}
		there, rule, err := guestProxy(value, lookup)
		if err != nil {
			return p, banger.Wrap(err, "bad %s", name)
		}
		p.env = append(p.env, name+"="+there)
		if rule != "" && !slices.Contains(p.rules, rule) {
			p.rules = append(p.rules, rule)
		}
	}
	return p, nil
}

// guestProxy reads one value. It may hold a password, so no error shows it.
func guestProxy(value string, lookup func(host string) ([]netip.Addr, error)) (there, rule string, err error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return "", "", banger.Errorf(banger.Conflict, "it is no address of a proxy")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "1080" // of socks
	}
	addr, err := addressOfProxy(u.Hostname(), lookup)
	switch {
	case err != nil:
		return "", "", err
	case addr.IsLoopback():
		u.Host = net.JoinHostPort("host.vm", port)
		return u.String(), u.Host, nil
	case addr.IsPrivate():
		u.Host = net.JoinHostPort(addr.String(), port)
		return u.String(), u.Host, nil
	}
	return u.String(), "", nil // the internet, which is open
}

func addressOfProxy(host string, lookup func(host string) ([]netip.Addr, error)) (netip.Addr, error) {
	addr, err := netip.ParseAddr(host)
	if err == nil {
		addr = addr.Unmap()
	} else {
		all, err := lookup(host)
		if err != nil || len(all) == 0 {
			return addr, banger.Errorf(banger.Unavailable, "%s has no IPv4 address", host)
		}
		addr = all[0].Unmap()
	}
	if !addr.Is4() || addr.IsLoopback() && addr != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return addr, banger.Errorf(banger.Conflict, "%s cannot be reached from a guest", addr).
			Hint("a proxy at the host's 127.0.0.1, or at an IPv4 address, can")
	}
	return addr, nil
}
