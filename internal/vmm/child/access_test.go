package child

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// system is what a shell needs.
var system = []string{"/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"}

func needLandlock(t *testing.T) {
	t.Helper()
	if LandlockVersion() == 0 {
		t.Skip("this kernel has no Landlock")
	}
}

// TestAccessIsAllThereIs tries each way at files from inside, with what allows it
// and with what does not.
func TestAccessIsAllThereIs(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	secret, given, opened := filepath.Join(dir, "secret"), filepath.Join(dir, "given"), filepath.Join(dir, "opened")
	readable := filepath.Join(dir, "readable")
	for _, name := range []string{secret, given, opened, readable} {
		if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.OpenFile(opened, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen, err := os.Open(readable)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	access := Access{Read: system, Write: []string{"/dev/null", given, filepath.Join(dir, "gone")}, Open: []*os.File{file, seen}}
	for _, c := range []struct {
		what, script string
		allowed      bool
	}{
		{"read what is not given", "read x <" + secret, false},
		{"list its directory", "echo " + dir + "/* | grep secret", false},
		{"write what is not given", "echo x >" + secret, false},
		{"make a file", "echo x >" + dir + "/new", false},
		{"remove a file", "rm -f " + given, false},
		{"run what is not given", dir + "/secret", false},
		{"write where it may read", "echo x >>/usr/bin/env", false},
		{"read what is given", "cat " + given, true},
		{"write what is given", "echo text >" + given, true},
		{"read what is open here", "cat " + opened, true},
		{"write what is open here", "echo text >" + opened, true},
		{"read what is open here to be read", "cat " + readable, true},
		{"write what is open here to be read", "echo text >>" + readable, false},
		{"what is not", "exec 2>/dev/null; cat " + filepath.Join(dir, "gone"), false},
	} {
		for _, a := range []*Access{&access, nil} {
			if a == nil && (!c.allowed || os.Getuid() == 0) {
				continue
			}
			child, said := start(t, Spec{Access: a}, c.script)
			if ok := child.Wait().ExitStatus() == 0; ok != c.allowed {
				t.Errorf("%s: %v, want %v: %s", c.what, ok, c.allowed, said)
			}
		}
	}
	child, _ := start(t, Spec{}, "read x <"+secret+" || true; cat "+secret+" >/dev/null")
	if !child.Wait().Exited() || child.Wait().ExitStatus() != 0 {
		t.Error("without an Access it may not read either: the cases above prove nothing")
	}
}

// TestAccessLetsThroughWhatWasInherited: a VMM's disks are descriptors.
func TestAccessLetsThroughWhatWasInherited(t *testing.T) {
	needLandlock(t)
	out, far, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", "echo disk >&3"}, Files: []*os.File{nil, far, far, file}, Access: &Access{Read: system}})
	far.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if text, err := os.ReadFile(file.Name()); err != nil || string(text) != "disk\n" {
		t.Errorf("the file holds %q (%v)", text, err)
	}
}

// TestOtherThreadsKeepTheirRights: what confines a child is done to a thread of
// this process.
func TestOtherThreadsKeepTheirRights(t *testing.T) {
	const children = 50
	for range children {
		c, _ := start(t, Spec{Access: &Access{Read: system}}, "true")
		c.Wait()
		ended := make(chan error)
		for range 8 {
			go func() {
				_, err := os.ReadDir("/")
				ended <- err
			}()
		}
		for range 8 {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
	}
	// Some may be about to end, and a process's first thread cannot be ended.
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		confined, all := confinedThreads()
		if confined <= children/2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d threads are confined", confined, all)
		}
	}
}

func confinedThreads() (confined, all int) {
	statuses, _ := filepath.Glob("/proc/self/task/*/status")
	for _, name := range statuses {
		if text, _ := os.ReadFile(name); strings.Contains(string(text), "NoNewPrivs:\t1") {
			confined++
		}
	}
	return confined, len(statuses)
}

// TestEachLayerShowsWhatIsInForce starts a process with everything, and with each
// thing lifted in turn: its line goes and no other.
func TestEachLayerShowsWhatIsInForce(t *testing.T) {
	flags := uintptr(0)
	for _, ns := range Namespaces {
		flags |= ns.Flag
	}
	if !CanIsolate(flags) {
		t.Skip("this host does not let us make namespaces")
	}
	needLandlock(t)
	all := Spec{Namespaces: flags, Access: &Access{Read: system}}
	full := layersOf(t, all)
	want := []string{Landlock, "no new privileges", fmt.Sprintf("oom_score_adj %d", oomScore)}
	for _, ns := range Namespaces {
		want = append(want, ns.Name)
	}
	if !same(full, want) {
		t.Fatalf("in force: %q, want %q", full, want)
	}
	for _, ns := range Namespaces[1:] { // no other without the first
		less := all
		less.Namespaces &^= ns.Flag
		expectLifted(t, full, layersOf(t, less), ns.Name)
	}
	less := all
	less.Access = nil
	expectLifted(t, full, layersOf(t, less), Landlock)
	less = all
	less.Namespaces = 0
	if got := layersOf(t, less); !same(got, want[:3]) {
		t.Errorf("without namespaces: %q", got)
	}
}

// TestPrivilegesThatWereNotGivenUpShow starts what Start would, on a thread that has given up none;
// with the privileges goes Landlock, which takes that.
func TestPrivilegesThatWereNotGivenUpShow(t *testing.T) {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)
	if !CanIsolate(flags) {
		t.Skip("this host does not let us make namespaces")
	}
	needLandlock(t)
	spec := Spec{Path: "/bin/sleep", Namespaces: flags, Access: &Access{Read: system}}
	full := layersOf(t, spec)
	process, err := os.StartProcess(spec.Path, []string{spec.Path, "1000"}, &os.ProcAttr{Sys: attributes(spec)})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Wait()
	defer process.Kill()
	prefer(process.Pid)
	expectLifted(t, slices.DeleteFunc(full, func(s string) bool { return s == Landlock }), inForce(process.Pid), "no new privileges")
}

// TestInForceIsReadNotRemembered looks at a process twice.
func TestInForceIsReadNotRemembered(t *testing.T) {
	c := sleeper(t, Spec{})
	before := c.InForce()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.PID()), []byte("777"), 0); err != nil {
		t.Fatal(err)
	}
	if after := c.InForce(); slices.Contains(before, "oom_score_adj 777") || !slices.Contains(after, "oom_score_adj 777") {
		t.Errorf("before %q, after %q", before, after)
	}
	c.Signal(syscall.SIGKILL)
	c.Wait()
	if got := c.InForce(); got != nil {
		t.Errorf("after its end: %q", got)
	}
}

// TestConfinedHasNoCapabilities, not even for root, in its own user namespace.
func TestConfinedHasNoCapabilities(t *testing.T) {
	const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
	if !CanIsolate(flags) {
		t.Skip("this host does not let us make namespaces")
	}
	c := sleeper(t, Spec{Namespaces: flags, Access: &Access{Read: system}})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapEff", "CapPrm", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000\n") {
			t.Errorf("it has capabilities:\n%s", status)
		}
	}
}

// TestTCPIsRefused where there is no namespace to keep the network away.
func TestTCPIsRefused(t *testing.T) {
	if LandlockVersion() < 4 {
		t.Skip("this kernel's Landlock knows nothing of networks")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	bash := fmt.Sprintf(`bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d'`, listener.Addr().(*net.TCPAddr).Port)
	for _, allowed := range []bool{true, false} {
		c, said := start(t, Spec{Access: &Access{Read: system, TCP: allowed}}, bash)
		if ok := c.Wait().ExitStatus() == 0; ok != allowed {
			t.Errorf("connects: %v, want %v: %s", ok, allowed, said)
		}
	}
}

func layersOf(t *testing.T, spec Spec) []string {
	t.Helper()
	return sleeper(t, spec).InForce()
}

func sleeper(t *testing.T, spec Spec) *Child {
	t.Helper()
	spec.Path, spec.Args = "/bin/sleep", []string{"1000"}
	c, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Signal(syscall.SIGKILL); c.Wait() })
	return c
}

func expectLifted(t *testing.T, full, got []string, name string) {
	t.Helper()
	want := slices.DeleteFunc(slices.Clone(full), func(s string) bool { return s == name })
	if len(want) == len(full) || !same(got, want) {
		t.Errorf("without %s: %q, want %q", name, got, want)
	}
}

func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func BenchmarkStart(b *testing.B) {
	access := Access{Read: append(system, "/opt", "/etc/localtime", "/sys/devices/system"), Write: []string{"/dev/null", "/dev/urandom", "/dev/kvm"}}
	const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS
	for _, c := range []struct {
		name string
		spec Spec
	}{{"bare", Spec{}}, {"namespaces", Spec{Namespaces: flags}}, {"confined", Spec{Namespaces: flags, Access: &access}}, {"Landlock alone", Spec{Access: &access}}} {
		c.spec.Path = "/bin/true"
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				child, err := Start(c.spec)
				if err != nil {
					b.Fatal(err)
				}
				child.Wait()
			}
		})
	}
	b.Run("InForce", func(b *testing.B) {
		c, err := Start(Spec{Path: "/bin/sleep", Args: []string{"1000"}, Namespaces: flags, Access: &access})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Wait()
		defer c.Signal(syscall.SIGKILL)
		for b.Loop() {
			c.InForce()
		}
	})
}
