package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest/standin"
)

// act is something that a driver does, from a machine that the stand-in runs.
type act struct {
	name  string
	needs func(t *testing.T, r *rig) // what comes before, undisturbed
	do    func(ctx context.Context, r *rig) error
	ends  bool // where it fails there is no machine
}

// rig is a stand-in and what a driver made of it.
type rig struct {
	standin *standin.StandIn
	cfg     vmm.Config
	machine vmm.Machine // or nil
	saved   vmm.Saved
	lines   *bufio.Reader
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := standin.New(t)
	r := &rig{standin: s, cfg: inPlace(t, s)}
	r.cfg.Dir = t.TempDir()
	for _, name := range []string{"root.img", "disk.img"} {
		if err := os.WriteFile(filepath.Join(r.cfg.Dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.cfg.Disks = []vmm.Disk{{Serial: "disk", Path: "disk.img"}, {Serial: "root", Path: "root.img", ReadOnly: true}}
	if CanMakeCards("/proc/self/exe") == nil {
		r.cfg.NIC = &vmm.NIC{MAC: "52:54:00:00:00:02", MTU: 1500}
	}
	r.saved = vmm.Saved{Memory: filepath.Join(r.cfg.Dir, "memory"), State: filepath.Join(r.cfg.Dir, "state")}
	t.Cleanup(r.end)
	return r
}

// end ends the machine, if there is one.
func (r *rig) end() {
	if r.machine == nil {
		return
	}
	_ = r.machine.Signal(os.Kill)
	<-r.machine.Done()
	_ = r.machine.Agent().Close()
	if c := r.machine.Cable(); c != nil {
		_ = c.Close()
	}
	r.machine = nil
}

func (r *rig) boot(ctx context.Context) error {
	m, err := Driver{}.Boot(ctx, r.cfg, vmm.IO{})
	return r.have(m, err)
}

func (r *rig) have(m vmm.Machine, err error) error {
	if err == nil {
		r.machine = m
		r.lines = bufio.NewReader(m.Agent())
	}
	return err
}

func (r *rig) restore(ctx context.Context) error {
	memory, err := os.OpenFile(r.saved.Memory, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	m, err := Driver{}.Restore(ctx, r.cfg, vmm.Source{Memory: memory, State: r.saved.State}, vmm.IO{})
	return r.have(m, err)
}

func (r *rig) save(ctx context.Context) error { return r.machine.Save(ctx, r.saved, nil) }

// ask asks the guest for its count, which it answers only where it runs.
func (r *rig) ask(limit time.Duration) (string, error) {
	_ = r.machine.Agent().SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(r.machine.Agent(), "count\n"); err != nil {
		return "", err
	}
	for {
		line, err := r.lines.ReadString('\n')
		if line != "hello\n" {
			return strings.TrimSpace(line), err
		}
	}
}

// acts are all that a driver makes calls for.
func acts() []act {
	booted := func(t *testing.T, r *rig) {
		if err := r.boot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	halted := func(t *testing.T, r *rig) {
		booted(t, r)
		if err := r.machine.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	atRest := func(t *testing.T, r *rig) {
		booted(t, r)
		if err := r.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.end()
	}
	return []act{
		{"boot", func(*testing.T, *rig) {}, func(ctx context.Context, r *rig) error { return r.boot(ctx) }, true},
		{"restore", atRest, func(ctx context.Context, r *rig) error { return r.restore(ctx) }, true},
		{"pause", booted, func(ctx context.Context, r *rig) error { return r.machine.Pause(ctx) }, false},
		{"resume", halted, func(ctx context.Context, r *rig) error { return r.machine.Resume(ctx) }, false},
		{"save", booted, func(ctx context.Context, r *rig) error { return r.save(ctx) }, false},
		{"save of a halted machine", halted, func(ctx context.Context, r *rig) error { return r.save(ctx) }, false},
		{"grow", booted, func(ctx context.Context, r *rig) error {
			if err := os.Truncate(filepath.Join(r.cfg.Dir, "disk.img"), 2<<20); err != nil {
				return err
			}
			return r.machine.GrowDisk(ctx, "disk", 2<<20)
		}, false},
	}
}

// wantedCalls are the calls that each act makes, in their order.
var wantedCalls = map[string][]string{
	"boot": {"GET /", "PUT /machine-config", "PUT /boot-source", "PUT /drives/disk0", "PUT /drives/disk1",
		"PUT /network-interfaces/card", "PUT /vsock", "PUT /entropy", "PUT /actions"},
	"restore":                  {"GET /", "PUT /snapshot/load"},
	"pause":                    {"GET /", "PATCH /vm"},
	"resume":                   {"GET /", "PUT /snapshot/create", "PATCH /vm"},
	"save":                     {"GET /", "GET /", "PATCH /vm", "GET /", "GET /", "PUT /snapshot/create"},
	"save of a halted machine": {"GET /", "GET /", "GET /", "GET /", "PUT /snapshot/create"},
	"grow":                     {"GET /", "PATCH /drives/disk0"},
}

func (r *rig) wanted(a act) []string {
	return slices.DeleteFunc(slices.Clone(wantedCalls[a.name]), func(c string) bool {
		return r.cfg.NIC == nil && strings.HasPrefix(c, "PUT /network-interfaces")
	})
}

// TestEachActMakesTheseCalls, which the description allows: the stand-in fails the test at others.
func TestEachActMakesTheseCalls(t *testing.T) {
	for _, a := range acts() {
		t.Run(a.name, func(t *testing.T) {
			r := newRig(t)
			a.needs(t, r)
			r.standin.Calls()
			if err := a.do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range r.standin.Calls() {
				got = append(got, strings.Join(strings.Fields(c)[:2], " "))
			}
			if !slices.Equal(got, r.wanted(a)) {
				t.Errorf("it made the calls\n%q, want\n%q", got, r.wanted(a))
			}
		})
	}
}

// mishap is what befalls one call.
type mishap struct {
	name    string
	verdict standin.Verdict
	says    string // in the error
	done    bool   // the call was carried out nevertheless
}

func faults() []mishap {
	return []mishap{
		{"refused", standin.Refuse, standin.Refusal, false},
		{"dropped", standin.Drop, "no answer from Firecracker", false},
		{"dropped once it is done", standin.DropAfter, "no answer from Firecracker", true},
		{"the end of Firecracker", standin.Die, "", false},
	}
}

// TestEveryCallThatFails has each call of each act fail in each way, and looks what is left: no machine,
// or one that is as it was, and obeys. With -short each fails in one of the ways, in turn.
func TestEveryCallThatFails(t *testing.T) {
	before := world(t)
	t.Run("calls", func(t *testing.T) {
		for _, a := range acts() {
			for n := range wantedCalls[a.name] {
				for way, f := range faults() {
					if testing.Short() && way != (n+len(a.name))%len(faults()) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s as call %d is %s", a.name, wantedCalls[a.name][n], n, f.name), func(t *testing.T) {
						t.Parallel()
						tryFault(t, a, n, f)
					})
				}
			}
		}
	})
	// The stand-in's ends of what was closed are closed in their own time.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		after := world(t)
		if after.children <= before.children && after.files <= before.files {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the world was %+v and is %+v", before, after)
		}
	}
}

func tryFault(t *testing.T, a act, n int, f mishap) {
	r := newRig(t)
	if !a.ends {
		r.cfg.NIC = nil // costs a process, and changes nothing
	}
	if n >= len(r.wanted(a)) {
		t.Skip("this host makes no network cards")
	}
	a.needs(t, r)
	what := r.wanted(a)[n]
	r.standin.Script(failing(what, n, f.verdict))
	err := a.do(t.Context(), r)
	r.standin.Script(nil)
	if what == "GET /" && a.ends && f.verdict != standin.Refuse && f.verdict != standin.Die {
		return // which is asked again, until it answers
	}
	if err == nil {
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), f.says) {
		t.Errorf("error %q, want %q in it", err, f.says)
	}
	wantNothingSaved(t, r)
	if a.ends || f.verdict == standin.Die {
		r.wantEnd(t, a, f, err)
		return
	}
	r.wantAsBefore(t, a, what, f)
}

// failing has the nth call fail that this rig sees from now on, and what is asked again for it.
func failing(what string, n int, v standin.Verdict) func(standin.Call) standin.Verdict {
	var seen atomic.Int32
	return func(c standin.Call) standin.Verdict {
		at := int(seen.Add(1)) - 1
		again := strings.HasPrefix(what, "GET") && at == n+1 && v != standin.Refuse // which Go sends twice
		if at == n || again && c.What == what {
			return v
		}
		return standin.Carry
	}
}

func wantNothingSaved(t *testing.T, r *rig) {
	t.Helper()
	if r.machine == nil {
		return
	}
	for _, path := range []string{r.saved.Memory, r.saved.State} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// wantEnd looks for what a machine that ended leaves behind.
func (r *rig) wantEnd(t *testing.T, a act, f mishap, err error) {
	t.Helper()
	if !a.ends {
		select {
		case <-r.machine.Done():
		case <-time.After(time.Minute):
			t.Fatal("the machine has not ended")
		}
		if err := r.machine.Pause(t.Context()); banger.CodeOf(err) != banger.NotRunning {
			t.Errorf("Pause of a machine that ended: %v", err)
		}
		r.end()
	}
	left, _ := filepath.Glob(filepath.Join(r.cfg.Dir, homePrefix+"*"))
	if len(left) > 0 {
		t.Errorf("%q is left (%v)", left, err)
	}
	if a.ends && !strings.HasPrefix(err.Error(), "cannot ") {
		t.Errorf("error %q", err)
	}
}

// wantAsBefore looks whether the machine does what it did, and takes orders.
func (r *rig) wantAsBefore(t *testing.T, a act, what string, f mishap) {
	t.Helper()
	ran := !strings.Contains(a.name, "halted") && a.name != "resume"
	switch {
	case f.done && what == "PATCH /vm":
		ran = a.name == "resume" || a.name == "save" // a save undoes it
	case a.name == "resume" && what == "PATCH /vm":
	}
	running, err := r.machine.(*machine).running(t.Context())
	if err != nil || running != ran {
		t.Errorf("the machine runs: %v, want %v (%v)", running, ran, err)
	}
	if err := errors.Join(r.machine.Pause(t.Context()), r.machine.Resume(t.Context())); err != nil {
		t.Fatalf("it does not obey any more: %v", err)
	}
	if got, err := r.ask(20 * time.Second); err != nil || got != "1" {
		t.Errorf("the guest answers %q (%v)", got, err)
	}
	if err := r.save(t.Context()); err != nil {
		t.Errorf("it cannot be saved any more: %v", err)
	}
	r.end()
	if err := r.restore(t.Context()); err != nil {
		t.Fatalf("what was saved does not come back: %v", err)
	}
	if got, err := r.ask(20 * time.Second); err != nil || got != "2" {
		t.Errorf("the guest that came back answers %q (%v)", got, err)
	}
}

// TestCallsThatAreHeldUp lets each call of each act take longer, and then has whoever waits give up.
func TestCallsThatAreHeldUp(t *testing.T) {
	for _, a := range acts() {
		for n := range wantedCalls[a.name] {
			t.Run(fmt.Sprintf("%s/%s as call %d", a.name, wantedCalls[a.name][n], n), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				if !a.ends {
					r.cfg.NIC = nil
				}
				if n >= len(r.wanted(a)) {
					t.Skip("this host makes no network cards")
				}
				a.needs(t, r)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				gaveUp := make(chan struct{})
				var seen atomic.Int32
				r.standin.Script(func(standin.Call) standin.Verdict {
					if int(seen.Add(1))-1 == n {
						cancel()
						<-gaveUp
					}
					return standin.Carry
				})
				result := make(chan error, 1)
				go func() { result <- a.do(ctx, r) }()
				<-ctx.Done()
				err := givesUp(result, gaveUp, a, wantedCalls[a.name][n])
				r.standin.Script(nil)
				if banger.CodeOf(err) != banger.Cancelled && !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v, want that it was cancelled", err)
				}
				wantNothingSaved(t, r)
				if a.ends {
					r.wantEnd(t, a, mishap{}, err)
					return
				}
				if err := errors.Join(r.machine.Pause(t.Context()), r.machine.Resume(t.Context())); err != nil {
					t.Fatal(err)
				}
				if got, err := r.ask(20 * time.Second); err != nil || got != "1" {
					t.Errorf("the guest answers %q (%v)", got, err)
				}
			})
		}
	}
}

// givesUp lets a call that is held up go on once whoever waited has given up. A save
// waits for what it cannot take back: that goes on as well.
func givesUp(result <-chan error, gaveUp chan<- struct{}, a act, call string) error {
	held := time.Minute
	if strings.HasPrefix(a.name, "save") || call == "PUT /snapshot/create" {
		held = 100 * time.Millisecond
	}
	select {
	case err := <-result:
		close(gaveUp)
		return err
	case <-time.After(held):
		close(gaveUp)
		return <-result
	}
}

// TestStopNeedsNoCall ends a machine whose API answers nothing.
func TestStopNeedsNoCall(t *testing.T) {
	r := newRig(t)
	if err := r.boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	r.standin.Script(func(standin.Call) standin.Verdict { <-release; return standin.Carry })
	defer close(release)
	paused := make(chan error, 1)
	go func() { paused <- r.machine.Pause(t.Context()) }()
	if err := r.machine.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-r.machine.Done()
	if exit := r.machine.Exit(); exit != (vmm.Exit{Reason: vmm.Killed, Signal: "SIGTERM"}) {
		t.Errorf("exit = %+v", exit)
	}
	if err := <-paused; banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("Pause: %v", err)
	}
}

// left is what machines could leave behind in this process.
type left struct {
	children int
	files    int // sockets, pipes and memories
}

func world(t *testing.T) (all left) {
	t.Helper()
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		all.children += len(strings.Fields(string(text)))
	}
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, _ := os.Readlink(link); strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "/memfd:") {
			all.files++
		}
	}
	return all
}
