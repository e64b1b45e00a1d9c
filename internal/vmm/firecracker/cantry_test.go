package firecracker

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm/child"
)

// TestTrialOfACardShowsWhatIsRefused tries with this program, which makes a card, and with one
// that is refused to.
func TestTrialOfACardShowsWhatIsRefused(t *testing.T) {
	if tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		t.Skip(err)
	} else {
		tun.Close()
	}
	if !child.CanIsolate(unix.CLONE_NEWUSER | unix.CLONE_NEWNET) {
		t.Skip("this host does not let us make namespaces")
	}
	if err := tryCard("/proc/self/exe"); err != nil {
		t.Errorf("no card can be made: %v", err)
	}
	rights := cardRights
	defer func() { cardRights = rights }()
	cardRights = nil
	if os.Getuid() != 0 { // who has all rights anyway
		if err := tryCard("/proc/self/exe"); err == nil {
			t.Error("without rights a card is made")
		}
	}
	if err := tryCard("/bin/false"); err == nil {
		t.Error("a program that fails makes a card")
	}
}
