package client_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"banger/client"
	"banger/internal/paths"
	"banger/internal/service"
)

// standIn is the test binary in the place of systemctl: of a service that is
// enabled, whose daemon it starts as systemd does, and waits until it says that
// it is up. What it was told is noted in STAND_IN.
func standIn(args []string) error {
	note, err := os.OpenFile(os.Getenv("STAND_IN"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer note.Close()
	if args[1] != "restart" {
		return nil
	}
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "\x00banger-test-" + strconv.Itoa(os.Getpid()), Net: "unixgram"})
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "daemon", "run")
	cmd.Args[0] = "banger"
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=@"+heard.LocalAddr().String()[1:])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintln(note, cmd.Process.Pid)
	go func() {
		_ = cmd.Wait()
		heard.Close() // it ended before it was up
	}()
	_, err = heard.Read(make([]byte, 100))
	return err
}

// served gives options that have a service of systemd's start the daemon, and
// what tells the processes that it has started.
func served(t *testing.T, dirs paths.Dirs, o client.Options) (client.Options, func() []string) {
	t.Helper()
	tools, notes := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	if err := os.Symlink("/proc/"+strconv.Itoa(os.Getpid())+"/exe", filepath.Join(tools, "systemctl")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	t.Setenv("STAND_IN", notes)
	m := service.Manager{Path: dirs.Unit(), Booted: tools}
	o.Service = func(ctx context.Context) {
		if err := m.Start(ctx); err != nil {
			t.Error(err)
		}
	}
	return o, func() (all []string) {
		f, err := os.Open(notes)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			all = append(all, lines.Text())
		}
		return all
	}
}

func TestTheServiceStartsOneDaemonForAll(t *testing.T) {
	dirs := home(t)
	o, started := served(t, dirs, client.Options{})
	pids := make([]string, 6)
	var wait sync.WaitGroup
	for n := range pids {
		wait.Go(func() {
			c, err := client.Connect(t.Context(), dirs, o)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			v, err := c.Version(t.Context())
			if err != nil {
				t.Error(err)
			}
			pids[n] = strconv.Itoa(v.PID)
		})
	}
	wait.Wait()
	all := started()
	for _, pid := range pids {
		if len(all) != 1 || pid != all[0] {
			t.Fatalf("they speak to the daemons %q, the service started %q", pids, all)
		}
	}
}

func TestAnIdleDaemonOfAnotherBuildIsReplacedByTheService(t *testing.T) {
	dirs := home(t)
	t.Setenv("BANGER_TEST_BUILD", "old")
	o, started := served(t, dirs, client.Options{BuildID: "old"})
	_, first := connect(t, dirs, o)
	t.Setenv("BANGER_TEST_BUILD", "new")
	o.BuildID = "new"
	_, second := connect(t, dirs, o)
	want := fmt.Sprint([]int{first.PID, second.PID})
	if got := fmt.Sprint(started()); got != want || first.PID == second.PID || second.BuildID != "new" {
		t.Errorf("the service started %s, which answered were %s of %s", got, want, second.BuildID)
	}
}

func TestADaemonDoesWithoutAServiceThatFails(t *testing.T) {
	dirs := home(t)
	asked := 0
	_, v := connect(t, dirs, client.Options{Service: func(context.Context) { asked++ }})
	if asked != 1 || v.PID == 0 {
		t.Errorf("the service was asked %d times, daemon %d", asked, v.PID)
	}
}
