package cli

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger"
	"banger/internal/guestbin"
	"banger/internal/layers"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
	"banger/internal/vnet"
	"banger/internal/vnet/reach"
)

var update = flag.Bool("update", false, "write what tests compare with")

// fakeBanger is banger with machines that are ordinary processes: everything
// else in it is real.
func fakeBanger() {
	deps := Real()
	deps.Shim = func(ctx context.Context, dir string) error {
		return shim.Main(ctx, dir, shim.Options{
			Build:   "test",
			Driver:  func(string) (vmm.Driver, error) { return vmmtest.Fake{}, nil },
			Network: func(s reach.Site) (shim.Wire, error) { return vnet.OnHost(s) },
			Layers:  shim.Layers{Of: layers.Of, Flatten: layers.Flatten, Take: layers.Take},
		})
	}
	os.Exit(Main(os.Args[1:], deps))
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"banger": fakeBanger,
		"exe":    fakeBanger, // the daemon starts shims as /proc/self/exe
	})
}

// TestScripts runs sessions of the command line against a real daemon with a
// real database. What is copied into a guest ends up on this host.
func TestScripts(t *testing.T) {
	agent, err := guestbin.Binary()
	if errors.Is(err, guestbin.ErrMissing) {
		t.Skip(err)
	}
	shared := t.TempDir()
	guest := filepath.Join(shared, "banger-guest")
	monitor := filepath.Join(shared, "vmm")
	script := "#!/bin/sh\ncase $1 in serve) exec " + guest + " serve;; *) echo QEMU emulator version 7.2.0;; esac\n"
	if err := errors.Join(os.WriteFile(guest, agent, 0o755), os.WriteFile(monitor, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:             filepath.Join("testdata", "script"),
		Setup:           func(env *testscript.Env) error { return furnish(env, shared, monitor) },
		UpdateScripts:   *update,
		ContinueOnError: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": cmdStatus, "matches": cmdMatches, "foreigndb": cmdForeignDB,
			"foreignvm": cmdForeignVM, "helps": cmdHelps, "points": cmdPoints,
		},
	})
}

// furnish gives a script an installation with a kernel and an image that are
// empty files, and sees to its end.
func furnish(env *testscript.Env, shared, monitor string) error {
	env.Vars = append(env.Vars,
		"HOME="+env.WorkDir,
		"XDG_STATE_HOME="+env.WorkDir+"/.state",
		"XDG_CONFIG_HOME="+env.WorkDir+"/.config",
		"XDG_CACHE_HOME="+shared+"/cache",
		"XDG_RUNTIME_DIR="+env.WorkDir+"/.run",
		// Under the race detector every process sleeps for a second before it ends.
		"GORACE=atexit_sleep_ms=0",
	)
	state := filepath.Join(env.WorkDir, ".state", "banger")
	// No samples by themselves, since what two commands say of a VM is compared.
	files := map[string]string{
		env.WorkDir + "/.config/banger/config.toml": fmt.Sprintf("stats_poll_interval = \"1h\"\nqemu_bin = %q\naccel = \"tcg\"\n[vm_defaults]\nvcpu = 1\nmemory_mib = 128\ndisk_size = \"1G\"\n", monitor),
	}
	if err := errors.Join(writeFiles(files), os.Mkdir(env.WorkDir+"/.run", 0o700), addKernel(state), addImage(state)); err != nil {
		return err
	}
	env.Defer(func() { vacate(env) })
	return nil
}

func writeFiles(files map[string]string) error {
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func addKernel(state string) error {
	digest := strings.Repeat("ab", 32)
	dir := filepath.Join(state, "kernels", "by-digest", digest)
	names := filepath.Join(state, "kernels", "names")
	return errors.Join(
		writeFiles(map[string]string{
			dir + "/vmlinux": "", dir + "/modules.ext4": "", dir + "/early/order": "",
			dir + "/kernel.json": `{"name":"debian-cloud","distro":"debian","arch":"amd64","release":"6.1.0-test","source":"a test"}`,
		}),
		os.MkdirAll(names, 0o700),
		os.Symlink(filepath.Join("..", "by-digest", digest), filepath.Join(names, banger.DefaultKernel)))
}

func addImage(state string) error {
	id := strings.Repeat("cd", 16)
	dir := filepath.Join(state, "images", id)
	err := writeFiles(map[string]string{
		dir + "/rootfs.ext4": "",
		dir + "/image.json":  fmt.Sprintf(`{"id":%q,"name":%q,"digest":"sha256:00","source":"a test","created_at":"2026-01-02T03:04:05Z"}`, id, banger.DefaultImage),
	})
	if err != nil {
		return err
	}
	s, err := store.Open(context.Background(), filepath.Join(state, "state.db"))
	if err != nil {
		return err
	}
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	err = s.UpsertImage(context.Background(), banger.Image{
		ID: id, Name: banger.DefaultImage, Managed: true, ArtifactDir: dir, RootfsPath: dir + "/rootfs.ext4",
		CreatedAt: made, UpdatedAt: made,
	})
	return errors.Join(err, s.Close())
}

// vacate ends all processes of a script's installation.
func vacate(env *testscript.Env) {
	run := func(args ...string) string {
		cmd := exec.Command("banger", args...)
		cmd.Env, cmd.Dir = env.Vars, env.WorkDir
		out, _ := cmd.Output()
		return string(out)
	}
	if ids := strings.Fields(run("vm", "list", "-q")); len(ids) > 0 {
		run(append([]string{"vm", "rm", "-f"}, ids...)...)
	}
	run("daemon", "stop", "-f")
}

// cmdStatus runs a command and compares its exit status: status 42 banger …
// Output can be looked at afterwards.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%v exited with %d, want %s\nstdout: %s\nstderr: %s", args[1:], got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// cmdMatches checks a file's whole content: matches FILE TEXT.
func cmdMatches(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: matches file text")
	}
	if got := strings.TrimSuffix(ts.ReadFile(args[0]), "\n"); got != args[1] {
		ts.Fatalf("%s is %q, want %q", args[0], got, args[1])
	}
}

// cmdForeignDB makes another program's database: foreigndb FILE.
func cmdForeignDB(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	if err == nil {
		_, err = db.Exec("CREATE TABLE cookies (host TEXT); INSERT INTO cookies VALUES ('example.com')")
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

// cmdForeignVM writes another tool's row, while no daemon runs: foreignvm NAME.
func cmdForeignVM(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	s, err := store.Open(ctx, filepath.Join(ts.Getenv("XDG_STATE_HOME"), "banger", "state.db"))
	if err == nil {
		row := banger.VM{ID: banger.NewID(), Name: args[0], ImageID: strings.Repeat("cd", 16), State: banger.StateStopped}
		_, err = s.ReserveVM(ctx, row, "10.77.0.0/16")
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

// cmdHelps runs a command that must fail with a status and the hint to run
// another, runs that, and then the first again, which must succeed:
// helps 1 'banger vm stop devbox' banger rm devbox.
func cmdHelps(ts *testscript.TestScript, _ bool, args []string) {
	cmdPoints(ts, false, args)
	cmdStatus(ts, false, append([]string{"0"}, args[2:]...))
}

// cmdPoints is cmdHelps for a hint at something else to do or to look at: the first
// command is not run again.
func cmdPoints(ts *testscript.TestScript, _ bool, args []string) {
	cmdStatus(ts, false, append([]string{args[0]}, args[2:]...))
	said := ts.ReadFile("stderr")
	hinted := slices.ContainsFunc(strings.Split(said, "\n"), func(line string) bool {
		hint, is := strings.CutPrefix(line, "hint: ")
		return is && strings.Contains(hint, args[1])
	})
	if !strings.HasPrefix(said, "banger: ") || !hinted {
		ts.Fatalf("no hint says %q:\n%s", args[1], said)
	}
	cmdStatus(ts, false, []string{"0", "sh", "-c", args[1]})
}
