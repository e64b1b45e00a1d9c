package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/daemon"
	"banger/internal/paths"
)

// The test binary is the daemon it starts, a second command line,
// and systemctl.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "systemctl" {
		if err := standIn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	switch strings.Join(os.Args[1:], " ") {
	case "daemon run":
		dirs, err := paths.FromEnv()
		if err == nil {
			err = daemon.Run(context.Background(), daemon.Options{Dirs: dirs, BuildID: os.Getenv("BANGER_TEST_BUILD")})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "connect":
		dirs, err := paths.FromEnv()
		if err == nil {
			err = connectAndShow(dirs)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func connectAndShow(dirs paths.Dirs) error {
	c, err := client.Connect(context.Background(), dirs, client.Options{})
	if err != nil {
		return err
	}
	v, err := c.Version(context.Background())
	fmt.Print(v.PID)
	return err
}

// home gives this process an installation of its own, as the environment
// names it, and ends the daemon that may run there.
func home(t *testing.T) paths.Dirs {
	t.Helper()
	base := t.TempDir()
	for name, dir := range map[string]string{
		"HOME": "home", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_RUNTIME_DIR": "run",
	} {
		t.Setenv(name, filepath.Join(base, dir))
	}
	return current(t)
}

func current(t *testing.T) paths.Dirs {
	t.Helper()
	dirs, err := paths.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := client.Find(context.Background(), dirs)
		if banger.CodeOf(err) == banger.Unavailable {
			return
		}
		if err == nil {
			defer c.Close()
			err = c.StopDaemon(context.Background(), true)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dirs
}

func connect(t *testing.T, dirs paths.Dirs, o client.Options) (*client.Client, api.Version) {
	t.Helper()
	c, err := client.Connect(t.Context(), dirs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, version(t, c)
}

func version(t *testing.T, c *client.Client) api.Version {
	t.Helper()
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestConnectStartsOneDaemonForAll(t *testing.T) {
	dirs := home(t)
	if _, err := client.Find(t.Context(), dirs); banger.CodeOf(err) != banger.Unavailable {
		t.Fatalf("before: %v", err)
	}
	pids := make([]string, 8)
	var wait sync.WaitGroup
	for n := range pids {
		wait.Go(func() {
			if n%2 == 0 { // another process, started at the same moment
				out, err := exec.Command("/proc/self/exe", "connect").CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				pids[n] = string(out)
				return
			}
			c, err := client.Connect(t.Context(), dirs, client.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			pids[n] = strconv.Itoa(version(t, c).PID)
		})
	}
	wait.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == "" || pid == strconv.Itoa(os.Getpid()) {
			t.Fatalf("they speak to the daemons %q", pids)
		}
	}
}

func TestASecondDaemonProcessEndsWithAClearError(t *testing.T) {
	dirs := home(t)
	_, first := connect(t, dirs, client.Options{})
	out, err := exec.Command("/proc/self/exe", "daemon", "run").CombinedOutput()
	want := fmt.Sprintf("a daemon (pid %d) runs for %s already, on %s", first.PID, dirs.State, first.Socket)
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAfterAKilledDaemonTheNextCommandStartsAnother(t *testing.T) {
	dirs := home(t)
	c, first := connect(t, dirs, client.Options{})
	kill(t, first.PID)
	// Reading is asked again by the client that was connected already.
	if second := version(t, c); second.PID == first.PID {
		t.Errorf("the killed daemon %d answers", first.PID)
	}
	kill(t, version(t, c).PID)
	_, third := connect(t, dirs, client.Options{})
	if third.PID == first.PID || third.Socket != first.Socket {
		t.Errorf("first %+v, third %+v", first, third)
	}
}

// kill ends a daemon this test started and waits for its end.
func kill(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(current(t).DaemonLock())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
}

func TestAFailingStartSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(paths.Dirs) error
		says  string
	}{
		"foreign database": {func(d paths.Dirs) error {
			if err := os.MkdirAll(d.State, 0o700); err != nil {
				return err
			}
			return os.WriteFile(d.Database(), []byte(strings.Repeat("no database ", 20)), 0o600)
		}, "state.db"},
		"state directory cannot be made": {func(d paths.Dirs) error {
			return os.WriteFile(filepath.Dir(d.State), nil, 0o600)
		}, "cannot make the state directory"},
		"runtime directory is a link": {func(d paths.Dirs) error {
			if err := os.MkdirAll(filepath.Dir(d.Runtime), 0o700); err != nil {
				return err
			}
			return os.Symlink("/tmp", d.Runtime)
		}, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := home(t)
			if err := c.spoil(dirs); err != nil {
				t.Fatal(err)
			}
			_, err := client.Connect(t.Context(), dirs, client.Options{})
			if err == nil || !strings.Contains(err.Error(), c.says) || banger.CodeOf(err) == banger.Internal {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("executable is no daemon", func(t *testing.T) {
		dirs := home(t)
		_, err := client.Connect(t.Context(), dirs, client.Options{Exe: "/bin/true"})
		if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "without a word") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnIdleDaemonOfAnotherBuildIsReplaced(t *testing.T) {
	dirs := home(t)
	t.Setenv("BANGER_TEST_BUILD", "old")
	warned := func(message string) { t.Errorf("warned: %s", message) }
	old, first := connect(t, dirs, client.Options{BuildID: "old", Warn: warned})
	if again := version(t, old); again.PID != first.PID {
		t.Errorf("the same build got daemon %d, then %d", first.PID, again.PID)
	}
	found, err := client.Find(t.Context(), dirs)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	if v := version(t, found); v.PID != first.PID {
		t.Error("looking at it replaced it")
	}
	t.Setenv("BANGER_TEST_BUILD", "new")
	_, second := connect(t, dirs, client.Options{BuildID: "new", Warn: warned})
	if second.PID == first.PID || second.BuildID != "new" {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

func TestADaemonStopsOnceItHasLetGo(t *testing.T) {
	dirs := home(t)
	c, _ := connect(t, dirs, client.Options{})
	if err := c.StopDaemon(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(dirs.DaemonLock())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("it still holds the lock: %v", err)
	}
	if left, _ := filepath.Glob(dirs.Runtime + "/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestTheDaemonKnowsLittleOfTheShellThatStartedIt(t *testing.T) {
	dirs := home(t)
	t.Setenv("HTTPS_PROXY", "http://secret@proxy")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("BANGER_LOG_LEVEL", "debug")
	_, v := connect(t, dirs, client.Options{})
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", v.PID))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(environ), "secret") || !strings.Contains(string(environ), "BANGER_LOG_LEVEL=debug") {
		t.Errorf("its environment: %q", environ)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", v.PID)); err != nil || cwd != "/" {
		t.Errorf("its directory: %s %v", cwd, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	if session := strings.Fields(fields)[3]; session != strconv.Itoa(v.PID) {
		t.Errorf("its session is %s, its pid %d", session, v.PID)
	}
	for _, fd := range []string{"1", "2"} {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", v.PID, fd)); err != nil || to != dirs.DaemonLog() {
			t.Errorf("descriptor %s: %s %v", fd, to, err)
		}
	}
}

func TestPathsOfAnyKindWork(t *testing.T) {
	for name, variables := range map[string]map[string]string{
		"odd characters":     {"XDG_STATE_HOME": "/a b?c#d%41é"},
		"150 characters":     {"XDG_STATE_HOME": "/" + strings.Repeat("s", 150)},
		"long runtime path":  {"XDG_RUNTIME_DIR": "/" + strings.Repeat("r", 150)},
		"no runtime session": {"XDG_RUNTIME_DIR": "", "TMPDIR": "/tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			base := filepath.Dir(filepath.Dir(home(t).State))
			for variable, value := range variables {
				if value != "" {
					value = base + value
				}
				if variable == "TMPDIR" {
					if err := os.Mkdir(value, 0o777); err != nil {
						t.Fatal(err)
					}
				}
				t.Setenv(variable, value)
			}
			dirs := current(t)
			c, v := connect(t, dirs, client.Options{})
			if v.State != dirs.State || v.Socket != dirs.Socket() || !strings.HasPrefix(v.Socket, base) {
				t.Errorf("%+v", v)
			}
			if all, err := c.VMs(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("%v %v", all, err)
			}
		})
	}
}

// Two shells of one user may have different runtime directories: the lock
// names the socket.
func TestADaemonIsFoundFromAnotherSession(t *testing.T) {
	dirs := home(t)
	_, first := connect(t, dirs, client.Options{})
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	other, err := paths.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if _, second := connect(t, other, client.Options{}); second.PID != first.PID || other.Socket() == first.Socket {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

// The socket goes with its directory when the user logs out, and the daemon stays.
func TestADaemonWhoseSocketIsGoneIsNamed(t *testing.T) {
	dirs := home(t)
	_, first := connect(t, dirs, client.Options{})
	if err := os.RemoveAll(dirs.Runtime); err != nil {
		t.Fatal(err)
	}
	_, err := client.Find(t.Context(), dirs)
	if hints := fmt.Sprint(banger.HintsOf(err)); banger.CodeOf(err) != banger.Conflict || !strings.Contains(hints, fmt.Sprintf("kill %d ", first.PID)) {
		t.Errorf("got %v with the hints %s", err, hints)
	}
	kill(t, first.PID)
	if _, err := client.Find(t.Context(), dirs); banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("when it was killed: %v", err)
	}
}

// A start that is under way belongs to the daemon as well as to the command
// that began it, so a command that dies does not leave two daemons racing.
func TestACancelledStartLeavesAWorkingDaemon(t *testing.T) {
	dirs := home(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Connect(ctx, dirs, client.Options{}); banger.CodeOf(err) != banger.Cancelled {
		t.Fatalf("got %v", err)
	}
	connect(t, dirs, client.Options{})
}

func TestASocketOfAnotherUserIsNotTrusted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be two users")
	}
	const nobody = 65534
	base, err := os.MkdirTemp("", "banger-test-") // t.TempDir lies in a closed directory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	state, bin, socket := base+"/state/banger", base+"/client", base+"/planted.sock"
	text, err := json.Marshal(api.Whereabouts{PID: 1, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	planted, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer planted.Close()
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(base, 0o755), os.Chmod(socket, 0o666), os.MkdirAll(state, 0o700),
		os.WriteFile(bin, content, 0o755), os.Chmod(bin, 0o755),
		os.WriteFile(state+"/daemon.lock", text, 0o600),
		os.Chown(base+"/state", nobody, nobody), os.Chown(state, nobody, nobody), os.Chown(state+"/daemon.lock", nobody, nobody),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "connect")
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=" + base, "XDG_STATE_HOME=" + base + "/state", "XDG_RUNTIME_DIR=" + base}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "belongs to uid 0") {
		t.Errorf("%v: %s", err, out)
	}
}
