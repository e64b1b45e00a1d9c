package guest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSystemdsWordIsUnderstood(t *testing.T) {
	for message, want := range map[string]bool{
		"READY=1\nSTATUS=Ready.": true, "STATUS=READY=1": false, "READY=0": false, "STOPPING=1\nREADY=1": true, "": false,
	} {
		if got := saysReady(message); got != want {
			t.Errorf("%q: %v", message, got)
		}
	}
}

func TestResolvConfOfResolvedIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for target, want := range map[string]bool{
		"../run/systemd/resolve/stub-resolv.conf": true, "/run/systemd/resolve/resolv.conf": true, "/run/resolvconf/resolv.conf": false, "": false,
	} {
		file := filepath.Join(dir, "resolv.conf")
		_ = os.Remove(file)
		var err error
		if target == "" {
			err = os.WriteFile(file, nil, 0o644)
		} else {
			err = os.Symlink(target, file)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := resolvedHas(file); got != want {
			t.Errorf("%q: %v", target, got)
		}
	}
	want := "[Resolve]\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\nDNS=10.77.0.1\n"
	if got := resolvedConf([4]byte(net.IPv4(10, 77, 0, 1).To4())); got != want {
		t.Errorf("it is told %q", got)
	}
}
