package banger

import (
	"strconv"
	"strings"
	"testing"
)

func TestPublishedPortsAreRead(t *testing.T) {
	for s, want := range map[string]string{
		"8080:80":           "127.0.0.1:8080 80",
		"80:80/tcp":         "127.0.0.1:80 80",
		"127.0.0.2:8080:80": "127.0.0.2:8080 80",
		"[::1]:8080:80":     "[::1]:8080 80",
	} {
		p, err := ParsePublish(s)
		if got := p.Host.String() + " " + strconv.Itoa(int(p.Guest)); err != nil || got != want {
			t.Errorf("%s is %s, %v", s, got, err)
		}
	}
	for s, says := range map[string]string{
		"": "HOST:GUEST", "80": "HOST:GUEST", "80:80/sctp": "HOST:GUEST", "53:53/udp": "only TCP",
		"a:80": "port of the host", "0:80": "port of the host", "70000:80": "port of the host", ":80": "port of the host",
		"80:": "port of the guest", "80:0": "port of the guest", "80:65536": "port of the guest",
		"0.0.0.0:80:80": "loopback only", "192.0.2.1:80:80": "loopback only",
	} {
		if _, err := ParsePublish(s); CodeOf(err) != BadRequest || !strings.Contains(err.Error(), says) || len(HintsOf(err)) == 0 {
			t.Errorf("%q gives %v", s, err)
		}
	}
	if _, err := ParsePublishes([]string{"8080:80", "127.0.0.1:8080:81"}); CodeOf(err) != BadRequest {
		t.Errorf("a port published twice gives %v", err)
	}
	if all, err := ParsePublishes([]string{"8080:80", "127.0.0.2:8080:80"}); err != nil || len(all) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
}
