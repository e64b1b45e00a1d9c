package shim

import (
	"encoding/json"
	"slices"

	"banger"
	"banger/internal/vnet/reach"
)

// maxProxies bounds what is remembered of the proxies of those who ran commands.
const maxProxies = 16

type proxyRequest struct {
	Rules []string `json:"rules"`
}

// openProxy lets the guest reach proxies beside what its row says. They are of the
// moment, as is the environment of whoever runs a command: they are not written down,
// and a guest that loses the internet loses them.
func (s *supervisor) openProxy(params json.RawMessage) error {
	var r proxyRequest
	if err := parse(params, &r); err != nil {
		return err
	}
	s.reaching.Lock()
	defer s.reaching.Unlock()
	if err := s.online(); err != nil {
		return banger.Wrap(err, "cannot open the host's proxy to %s", s.launch.Name)
	}
	s.mu.Lock()
	now := s.launch.Network.Reach
	s.mu.Unlock()
	if !now.NAT {
		return banger.Errorf(banger.Conflict, "cannot open the host's proxy to %s, which may not reach the internet", s.launch.Name).
			Hint("banger vm set %s --nat", s.launch.Name)
	}
	proxies := slices.Clone(s.proxies)
	for _, rule := range r.Rules {
		if !slices.Contains(proxies, rule) {
			proxies = append(proxies, rule)
		}
	}
	if len(proxies) == len(s.proxies) {
		return nil
	}
	proxies = proxies[max(0, len(proxies)-maxProxies):]
	policy, err := reach.ParsePolicy(true, slices.Concat(now.Allow, proxies))
	if err != nil {
		return banger.Wrap(err, "cannot open the host's proxy to %s", s.launch.Name)
	}
	s.proxies = proxies
	s.network.SetPolicy(policy)
	return nil
}
