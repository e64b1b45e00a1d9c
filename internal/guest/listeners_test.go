package guest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// told follows what an agent tells of listeners.
func told(t *testing.T, a *served) <-chan []guestwire.Listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tellings, ended := make(chan []guestwire.Listener), make(chan struct{})
	go func() {
		defer close(ended)
		_ = guestlink.Over(a.Conn).Listeners(ctx, func(all []guestwire.Listener) {
			select {
			case tellings <- all:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return tellings
}

// awaitTelling waits until one is as wanted; others on this host come and go.
func awaitTelling(t *testing.T, tellings <-chan []guestwire.Listener, ok func([]guestwire.Listener) bool) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case all := <-tellings:
			if ok(all) {
				return
			}
		case <-late:
			t.Fatal("it is not told")
		}
	}
}

func addressOf(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

func find(all []guestwire.Listener, address netip.AddrPort) *guestwire.Listener {
	i := slices.IndexFunc(all, func(l guestwire.Listener) bool { return l.Address == address })
	if i < 0 {
		return nil
	}
	return &all[i]
}

func TestListenersAreToldAsTheyComeAndGo(t *testing.T) {
	a := serveAgent(t)
	there := listenOn(t, "tcp", "127.0.0.1:0")
	tellings := told(t, a)
	name, _ := os.ReadFile("/proc/self/comm")
	awaitTelling(t, tellings, func(all []guestwire.Listener) bool {
		l := find(all, addressOf(there))
		return l != nil && int(l.PID) == os.Getpid() && l.Process+"\n" == string(name)
	})
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		comes := listenOn(t, "tcp", address)
		awaitTelling(t, tellings, func(all []guestwire.Listener) bool { return find(all, addressOf(comes)) != nil })
		_ = comes.Close()
		awaitTelling(t, tellings, func(all []guestwire.Listener) bool {
			return find(all, addressOf(comes)) == nil && find(all, addressOf(there)) != nil
		})
	}
}

func TestBothWaysToFindListenersFindTheSame(t *testing.T) {
	v4, v6 := listenOn(t, "tcp", "127.0.0.1:0"), listenOn(t, "tcp", "[::1]:0")
	inodes := map[netip.AddrPort]uint32{}
	for family, address := range map[uint8]netip.AddrPort{2: addressOf(v4), 10: addressOf(v6)} {
		for name, look := range map[string]func(uint8) ([]socket, error){"dump": dumpSockets, "table": readSockets} {
			all, err := look(family)
			i := slices.IndexFunc(all, func(s socket) bool { return s.address == address })
			if err != nil || i < 0 {
				t.Fatalf("%s: %s is not in %v, %v", name, address, all, err)
			}
			if was, ok := inodes[address]; ok && was != all[i].inode {
				t.Errorf("%s: inode %d, not %d", name, all[i].inode, was)
			}
			inodes[address] = all[i].inode
		}
	}
}

func TestConnectionsAreNoListeners(t *testing.T) {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ours := c.LocalAddr().(*net.TCPAddr).AddrPort()
	for name, look := range map[string]func(uint8) ([]socket, error){"dump": dumpSockets, "table": readSockets} {
		all, err := look(2)
		if err != nil || slices.ContainsFunc(all, func(s socket) bool { return s.address == ours }) {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
}

func TestLookingForListenersIsPaced(t *testing.T) { synctest.Test(t, lookingIsPaced) }

func lookingIsPaced(t *testing.T) {
	var p pace
	gone := make(chan struct{})
	close(gone)
	begin := time.Now()
	for range 20 {
		p.wait(gone) // does not wait, but counts
	}
	if owed := p.paid.Sub(begin); owed < 16*time.Second || owed > 18*time.Second {
		t.Fatalf("20 looks at once put the next off by %v", owed)
	}
	p.paid = begin.Add(-time.Hour) // a long rest is no credit for a long run
	for range tellBurst {
		p.wait(gone)
	}
	if owed := time.Until(p.paid); owed < -100*time.Millisecond {
		t.Fatalf("after a rest and a burst there is %v left", -owed)
	}
}

// A kernel may lack the trace point, or this host may not let us have it.
func TestListenersAreToldByAKernelThatDoesNotTrace(t *testing.T) {
	l := listeners{changed: make(chan struct{})}
	here, there := net.Pipe()
	go func() { _ = guestwire.Serve(there, false, l.tell) }()
	conn, err := guestwire.Dial(here, guestwire.NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	tellings := told(t, &served{Conn: conn})
	<-tellings
	comes := listenOn(t, "tcp", "127.0.0.1:0")
	awaitTelling(t, tellings, func(all []guestwire.Listener) bool { return find(all, addressOf(comes)) != nil })
}
