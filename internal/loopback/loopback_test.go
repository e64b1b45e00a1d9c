package loopback

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"banger"
)

// TestMain is a holder of a prefix where a test starts this binary as one.
func TestMain(m *testing.M) {
	if space := os.Getenv("BANGER_TEST_HOLD"); space != "" {
		if _, err := Space(space).Hold("a", Prefix{77}, "a shim"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {}
	}
	os.Exit(m.Run())
}

// space is one that no other test uses.
func space(t *testing.T) Space { return Space("banger-test/" + banger.NewID()) }

func claim(t *testing.T, s Space, owner Owner, preferred string) (string, *os.File) {
	t.Helper()
	want, err := Parse(preferred)
	if err != nil {
		t.Fatal(err)
	}
	p, f, err := s.Claim(t.Context(), owner, want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return p.String(), f
}

func TestEachOwnerHasAPrefixOfItsOwn(t *testing.T) {
	s := space(t)
	first, held := claim(t, s, "a", "127.77")
	second, _ := claim(t, s, "b", "127.77")
	third, _ := claim(t, s, "c", "127.101")
	if first != "127.77" || second != "127.78" || third != "127.101" {
		t.Fatalf("got %s, %s, %s", first, second, third)
	}
	_ = held.Close()
	if fourth, _ := claim(t, s, "d", "127.77"); fourth != "127.77" {
		t.Fatalf("one that was given back is not given: %s", fourth)
	}
}

func TestDaemonThatComesBackFindsThePrefixOfItsShims(t *testing.T) {
	s := space(t)
	taken, other := claim(t, s, "z", "127.77")
	if taken != "127.77" {
		t.Fatal(taken)
	}
	p, daemon := claim(t, s, "a", "127.77")
	shim, err := s.Hold("a", Prefix{78}, "shim-1")
	if err != nil || p != "127.78" {
		t.Fatal(p, err)
	}
	defer shim.Close()
	_ = daemon.Close()
	if q, _ := claim(t, s, "b", "127.78"); q == p {
		t.Error("a prefix that a shim holds was given away")
	}
	if q, _ := claim(t, s, "a", "127.77"); q != p {
		t.Errorf("it got %s, not %s", q, p)
	}
	_ = other.Close() // and the one that is preferred is better
	if q, _ := claim(t, s, "c", "127.77"); q != "127.77" {
		t.Error(q)
	}
}

func TestKilledHolderHoldsNothing(t *testing.T) {
	s := space(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BANGER_TEST_HOLD="+string(s))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	before, f := claim(t, s, "b", "127.77")
	_ = f.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if after, _ := claim(t, s, "b", "127.77"); before != "127.78" || after != "127.77" {
		t.Fatalf("got %s and then %s", before, after)
	}
}

func TestClaimsAtOnceAreAllDifferent(t *testing.T) {
	s := space(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[Prefix]int{}
	for i := range lastSpare - firstSpare + 1 {
		all.Go(func() {
			p, f, err := s.Claim(t.Context(), Owner(fmt.Sprint(i)), Prefix{77})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = f.Close() })
			mu.Lock()
			got[p]++
			mu.Unlock()
		})
	}
	all.Wait()
	if len(got) != lastSpare-firstSpare+1 {
		t.Errorf("got %v", got)
	}
	if _, _, err := s.Claim(t.Context(), "late", Prefix{77}); banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) == 0 {
		t.Errorf("one too many gives %v", err)
	}
}

func TestClaimDoesNotWaitForEver(t *testing.T) {
	s := space(t)
	stuck, err := s.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := s.Claim(ctx, "a", Prefix{77}); banger.CodeOf(err) != banger.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestAddressIsMadeOfTheVMsNumber(t *testing.T) {
	p, err := Parse("127.77")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ network, guest, want string }{
		{"10.77.0.0/16", "10.77.0.2", "127.77.0.2"},
		{"10.77.0.0/16", "10.77.3.255", "127.77.3.255"},
		{"192.168.9.0/24", "192.168.9.7", "127.77.0.7"},
		{"10.0.0.0/8", "10.0.1.2", "127.77.1.2"},
		{"10.77.0.0/16", "192.168.3.4", "127.77.3.4"}, // of a former network
	} {
		if got := p.Of(netip.MustParsePrefix(c.network), netip.MustParseAddr(c.guest)); got.String() != c.want {
			t.Errorf("%s of %s is %s", c.guest, c.network, got)
		}
	}
	for _, bad := range []string{"", "127", "10.77", "127.256", "127.77.0"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is taken for a prefix", bad)
		}
	}
}

func TestOwnersAreDirectories(t *testing.T) {
	one, err := OwnerOf(t.TempDir())
	two, err2 := OwnerOf(t.TempDir())
	if err != nil || err2 != nil || one == two {
		t.Fatalf("%s, %s, %v, %v", one, two, err, err2)
	}
	if _, err := OwnerOf("/no/such/directory"); err == nil {
		t.Error("a directory that is not there has an owner")
	}
}
