package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/daemon"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// nobody is a user who owns nothing here.
const nobody = 65534

func TestMain(m *testing.M) {
	if socket := os.Getenv("BANGER_TEST_ASK"); socket != "" {
		ask(socket)
		return
	}
	os.Exit(m.Run())
}

// ask is a client of another user.
func ask(socket string) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprintf(conn, "GET /v1/vms HTTP/1.0\r\n\r\n")
	b := make([]byte, 4096)
	n, _ := conn.Read(b)
	fmt.Printf("%s", b[:n])
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestNobodyElseCanSeeInside(t *testing.T) {
	h := open(t, &fakeVMs{})
	for path, want := range map[string]fs.FileMode{
		h.dirs.State:               fs.ModeDir | 0o700,
		h.dirs.Runtime:             fs.ModeDir | 0o700,
		h.dirs.Socket():            fs.ModeSocket | 0o600,
		h.dirs.DaemonLock():        0o600,
		h.dirs.DaemonLog():         0o600,
		h.dirs.Database():          0o600,
		h.dirs.Database() + "-wal": 0o600,
	} {
		if got := mode(t, path); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

func TestOtherUsersAreRefusedEvenWhereModesLetThemIn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be two users")
	}
	h := open(t, &fakeVMs{})
	for dir := filepath.Dir(h.dirs.Socket()); dir != "/"; dir = filepath.Dir(dir) {
		if mode(t, dir).Perm()&0o001 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(h.dirs.Socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(filepath.Dir(h.dirs.Runtime), "client")
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Dir = "/"
	cmd.Env = []string{"BANGER_TEST_ASK=" + h.dirs.Socket()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "403") || !strings.Contains(string(out), `"unauthorized"`) {
		t.Errorf("another user got %s, %v", out, err)
	}
}

// attempt runs a daemon that is not expected to come up.
func attempt(dirs paths.Dirs) error {
	return daemon.RunWith(context.Background(), dirs, nil, func() { panic("it came up") })
}

// starting is the life of VMs whose crash takes long to be put right.
type starting struct {
	fakeVMs
	begun chan struct{}
}

func (s *starting) Reconcile(ctx context.Context) error {
	close(s.begun)
	<-ctx.Done()
	return ctx.Err()
}

func TestDaemonThatIsAskedToEndBeforeItIsUpHasNotFailed(t *testing.T) {
	ctx, ask := context.WithCancel(t.Context())
	s := &starting{begun: make(chan struct{})}
	ended := make(chan error)
	go func() {
		ended <- daemon.RunWith(ctx, tempDirs(t), func(*store.Store) vm.Service { return s }, func() { panic("it came up") })
	}()
	<-s.begun
	ask()
	if err := <-ended; !errors.Is(err, daemon.ErrAsked) {
		t.Errorf("got %v", err)
	}
}

func TestPlacesThatAreNotOursAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*testing.T, paths.Dirs)
		says  string
	}{
		"runtime directory is a link": {func(t *testing.T, d paths.Dirs) {
			must(t, os.Symlink(t.TempDir(), d.Runtime))
		}, "symbolic link"},
		"runtime directory is a file": {func(t *testing.T, d paths.Dirs) {
			must(t, os.WriteFile(d.Runtime, nil, 0o600))
		}, "symbolic link"},
		"runtime directory of another user": {func(t *testing.T, d paths.Dirs) {
			if os.Getuid() != 0 {
				t.Skip("only root can give away directories")
			}
			must(t, os.Mkdir(d.Runtime, 0o700))
			must(t, os.Chown(d.Runtime, nobody, nobody))
		}, "belongs to another user"},
		"state directory below a file": {func(t *testing.T, d paths.Dirs) {
			must(t, os.WriteFile(d.State, nil, 0o600))
		}, "not a directory"},
		"foreign database": {func(t *testing.T, d paths.Dirs) {
			must(t, os.Mkdir(d.State, 0o700))
			must(t, os.WriteFile(d.Database(), []byte("this is no database, and longer than a header of one is"), 0o600))
		}, "database"},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := tempDirs(t)
			c.spoil(t, dirs)
			err := attempt(dirs)
			if err == nil || !strings.Contains(err.Error(), c.says) || banger.CodeOf(err) == banger.Internal {
				t.Fatalf("got %v", err)
			}
			if _, err := os.Lstat(dirs.Socket()); err == nil {
				t.Error("the socket is there")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestARuntimeDirectoryOpenToOthersIsClosedToThem(t *testing.T) {
	dirs := tempDirs(t)
	must(t, os.Mkdir(dirs.Runtime, 0o700))
	must(t, os.Chmod(dirs.Runtime, 0o777))
	openAt(t, dirs, &fakeVMs{})
	if got := mode(t, dirs.Runtime).Perm(); got != 0o700 {
		t.Errorf("mode %v", got)
	}
}

func TestPathsOfAnyKindWork(t *testing.T) {
	for name, change := range map[string]func(*paths.Dirs, string){
		"odd characters":   func(d *paths.Dirs, base string) { d.State = base + "/a b?c#d%41é" },
		"150 characters":   func(d *paths.Dirs, base string) { d.State = base + "/" + strings.Repeat("s", 150) },
		"long socket path": func(d *paths.Dirs, base string) { d.Runtime = base + "/" + strings.Repeat("r", 150) },
		"odd socket path":  func(d *paths.Dirs, base string) { d.Runtime = base + "/a b?c#d%41é" },
	} {
		t.Run(name, func(t *testing.T) {
			dirs := tempDirs(t)
			change(&dirs, filepath.Dir(dirs.State))
			h := openAt(t, dirs, &fakeVMs{})
			if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dirs.Database()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheSecondDaemonIsToldOfTheFirst(t *testing.T) {
	h := open(t, &fakeVMs{})
	err := attempt(h.dirs)
	want := fmt.Sprintf("pid %d", os.Getpid())
	if banger.CodeOf(err) != banger.AlreadyExists || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), h.dirs.Socket()) {
		t.Fatalf("got %v", err)
	}
	if _, err := h.client.Version(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestADaemonWaitsForTheEndOfTheOneBeforeIt(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	created := make(chan error)
	go func() {
		_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
		created <- err
	}()
	<-g.entered
	ended := make(chan error)
	go func() { ended <- h.stop() }()
	for {
		if _, err := os.Lstat(h.dirs.Socket()); err != nil {
			break // it is stopping, and waits for the operation
		}
	}
	go func() { g.leave <- nil }()
	next := openAt(t, h.dirs, &fakeVMs{})
	if err := <-created; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if all, err := next.client.VMs(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the next daemon sees %v %v", all, err)
	}
}

// A process that was killed has its lock until the last of it has ended.
func TestAKilledDaemonThatStillHasItsLockIsWaitedFor(t *testing.T) {
	dirs := tempDirs(t)
	must(t, os.MkdirAll(dirs.State, 0o700))
	f, err := os.Create(dirs.DaemonLock())
	must(t, err)
	defer f.Close()
	_, err = f.Write(api.Marshal(api.Whereabouts{PID: os.Getpid(), Socket: dirs.Socket()}))
	must(t, err)
	leaveSocket(t, dirs)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	info, err := f.Stat()
	must(t, err)
	waits := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	go func() {
		defer f.Close()
		for t.Context().Err() == nil {
			locks, _ := os.ReadFile("/proc/locks")
			for line := range strings.Lines(string(locks)) {
				if strings.Contains(line, "-> FLOCK") && strings.Contains(line, waits) {
					return
				}
			}
		}
	}()
	openAt(t, dirs, &fakeVMs{})
}

// leaveSocket makes the socket of a daemon that was killed.
func leaveSocket(t *testing.T, dirs paths.Dirs) {
	t.Helper()
	must(t, os.Mkdir(dirs.Runtime, 0o700))
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: dirs.Socket(), Net: "unix"})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())
}

// Nobody is left waiting for the end of one that does not end.
func TestADaemonWhoseSocketIsGoneIsNamed(t *testing.T) {
	h := open(t, &fakeVMs{})
	must(t, os.Remove(h.dirs.Socket()))
	err := attempt(h.dirs)
	if want := fmt.Sprintf("kill %d", os.Getpid()); banger.CodeOf(err) != banger.AlreadyExists || !slices.Contains(banger.HintsOf(err), want) {
		t.Errorf("got %v with the hints %q", err, banger.HintsOf(err))
	}
}

func TestAStaleSocketIsReplacedAndGoesWithTheDaemon(t *testing.T) {
	dirs := tempDirs(t)
	leaveSocket(t, dirs)
	h := openAt(t, dirs, &fakeVMs{})
	if _, err := h.client.Version(t.Context()); err != nil {
		t.Error(err)
	}
	must(t, h.stop())
	if left, _ := os.ReadDir(dirs.Runtime); len(left) != 0 {
		t.Errorf("left in the runtime directory: %v", left)
	}
	if _, err := client.Find(t.Context(), dirs); banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("after its end: %v", err)
	}
}
