package vm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/guestwire"
	"banger/internal/layers"
	"banger/internal/loopback"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/sshkeys"
	"banger/internal/store"
	"banger/internal/template"
	"banger/internal/vmm"
)

// cache holds empty disks for all tests: making one takes longer than a test.
var cache string

func TestMain(m *testing.M) {
	var err error
	if cache, err = os.MkdirTemp("", "banger-vm-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(cache)
	os.Exit(code)
}

// world is a Manager on a real ledger and real directories, with shims,
// images and kernels that are not.
type world struct {
	*Manager
	t     testing.TB
	rows  *store.Store
	db    *failingStore
	shims *fakeShims

	image     Image
	templates fakeTemplates
	config    config.Config
	ownCAs    func() ([]byte, []string)

	imageErr, kernelErr, initErr, chooseErr, prefixErr error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, image: testImage, shims: &fakeShims{vms: map[string]*fakeShim{}}}
	var err error
	if w.rows, err = store.Open(t.Context(), filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.rows.Close() })
	if err := w.rows.UpsertImage(t.Context(), banger.Image{ID: testImage.ID, Name: testImage.Name, RootfsPath: "/r"}); err != nil {
		t.Fatal(err)
	}
	w.db = &failingStore{Store: w.rows}
	w.config, _, err = config.Load(filepath.Join(dir, "none.toml"))
	if err != nil {
		t.Fatal(err)
	}
	w.config.VMDefaults = config.VMDefaults{VCPU: 1, MemoryMiB: 256, DiskBytes: banger.GiB}
	w.restart(paths.Dirs{State: dir, Cache: cache})
	t.Cleanup(func() { w.Manager.close() })
	return w
}

// restart makes a new Manager, as a daemon that was killed and started again.
func (w *world) restart(dirs paths.Dirs) {
	if w.Manager != nil {
		w.Manager.close()
	}
	w.Manager = New(Deps{
		Store: w.db, Images: fakeImages{w}, Kernels: fakeKernels{w}, Shims: w.shims,
		Dirs: dirs, Log: slog.New(slog.DiscardHandler),
		Config: func() (config.Config, []config.Warning, error) { return w.config, nil, nil },
		Choose: func(context.Context, config.Config, banger.Kernel) (Machine, error) {
			return Machine{Driver: "fake", Binary: "/bin/vmm", Accel: vmm.TCG}, w.chooseErr
		},
		Initramfs: func(context.Context, banger.Kernel) (string, string, error) { return "/initrd", "i1", w.initErr },
		Trust:     func() ([]byte, []string) { return w.ownCAs() },
		Templates: &w.templates, Loopback: w, HostKeys: &sshkeys.Keys{Dirs: dirs},
	})
}

// Prefix implements Loopback.
func (w *world) Prefix(_ context.Context, preferred string) (loopback.Prefix, loopback.Owner, error) {
	p, err := loopback.Parse(preferred)
	return p, "test", errors.Join(err, w.prefixErr)
}

func (w *world) reconcile() {
	w.t.Helper()
	w.restart(w.Dirs)
	if err := w.Reconcile(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// String is everything there is, as sorted lines.
func (w *world) String() string {
	w.t.Helper()
	var lines []string
	rows, err := w.rows.VMs(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	ids := map[string]string{}
	for _, r := range rows {
		ids[r.ID] = r.Name
		lines = append(lines, "row "+r.Name+" "+string(r.State))
	}
	name := func(file string) string {
		for id, name := range ids {
			file = strings.ReplaceAll(file, id, name)
		}
		return file
	}
	for _, dir := range []string{w.Dirs.VMs(), w.Dirs.VMTrash()} {
		names, err := namesIn(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, n := range names {
			if n != filepath.Base(w.Dirs.VMTrash()) {
				lines = append(lines, "dir "+strings.TrimPrefix(filepath.Base(dir), ".")+"/"+name(n))
			}
		}
	}
	for _, id := range w.shims.running() {
		lines = append(lines, "process "+name(id))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (w *world) want(lines ...string) {
	w.t.Helper()
	if got, want := w.String(), strings.Join(lines, "\n"); got != want {
		w.t.Errorf("the world is\n%s\nbut should be\n%s", got, want)
	}
}

func (w *world) create(c Create) View {
	w.t.Helper()
	v, err := w.Create(w.t.Context(), c, quiet{})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) get(id string) View {
	w.t.Helper()
	v, err := w.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// eventually waits for what a watcher does.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s; the world is\n%s", what, w)
		}
	}
}

type quiet struct{}

func (quiet) Stage(string) {}
func (quiet) Warn(string)  {}

// onStage calls f when a stage begins.
type onStage func(string)

func (f onStage) Stage(name string) { f(name) }
func (onStage) Warn(string)         {}

// failingStore is the real ledger until it is told to fail.
type failingStore struct {
	*store.Store
	setState atomic.Pointer[error]
	written  func()       // when a state has been written
	read     func()       // when a row has been read
	refusals atomic.Int32 // how many rows are still not to be deleted
}

func (s *failingStore) fail(err error) { s.setState.Store(&err) }

func (s *failingStore) SetState(ctx context.Context, id string, state banger.State, r banger.Runtime) error {
	if err := s.setState.Load(); err != nil && *err != nil {
		return *err
	}
	if s.written != nil {
		defer s.written()
	}
	return s.Store.SetState(ctx, id, state, r)
}

func (s *failingStore) VM(ctx context.Context, id string) (banger.VM, error) {
	if s.read != nil {
		defer s.read()
	}
	return s.Store.VM(ctx, id)
}

func (s *failingStore) DeleteVM(ctx context.Context, id string) error {
	if s.refusals.Add(-1) >= 0 {
		return errors.New("disk full")
	}
	return s.Store.DeleteVM(ctx, id)
}

func (s *failingStore) SetStates(ctx context.Context, state banger.State, all map[string]banger.Runtime) error {
	if err := s.setState.Load(); err != nil && *err != nil {
		return *err
	}
	return s.Store.SetStates(ctx, state, all)
}

var testImage = Image{
	Image:  banger.Image{ID: strings.Repeat("1f", 16), Name: "deb", RootfsPath: "/rootfs"},
	Digest: strings.Repeat("ab", 32), Env: []string{"A=1"},
}

type fakeImages struct{ *world }

func (f fakeImages) Ensure(_ context.Context, ref string, _ banger.Access, stage func(string)) (Image, error) {
	stage("image " + ref)
	return f.image, f.imageErr
}
func (f fakeImages) Image(context.Context, string) (Image, error) { return f.image, f.imageErr }

type fakeKernels struct{ *world }

func (f fakeKernels) Get(ref string) (banger.Kernel, error) {
	return banger.Kernel{Name: ref, Digest: "k1", VmlinuxPath: "/vmlinux", VmlinuzPath: "/vmlinuz", ModulesPath: "/modules"}, f.kernelErr
}
func (f fakeKernels) Pull(context.Context, string, bool, banger.Access, func(string)) (banger.Kernel, error) {
	return banger.Kernel{}, f.kernelErr
}

// fakeShims keeps shims by VM id; a shim is a process as long as it is there.
type fakeShims struct {
	mu       sync.Mutex
	vms      map[string]*fakeShim
	startErr error
	refuse   func(shim.Launch) error // why one start fails
	guest    func(*fakeShim)         // what a guest does that was just started; nil: it comes up
	mute     bool                    // shims do not answer
	stopErr  error
	onKill   func()
	killed   func() // when a VM was killed by its shim
	saveErr  error
	onSave   func()                           // when a VM has been saved
	saving   func(context.Context, *fakeShim) // while one is
	stopped  bool                             // shims take no notice of a kill
	onStatus func()                           // when one is asked for its status
	onIdle   func(*fakeShim)                  // when a VM is to end if it is idle
}

func (f *fakeShims) running() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for id, s := range f.vms {
		if s.alive() {
			ids = append(ids, id)
		}
	}
	return ids
}

// idOf is the id of the VM whose record lies in dir.
func idOf(dir paths.VM) string {
	h, _ := ReadHeld(dir)
	return h.ID
}

func (f *fakeShims) of(dir paths.VM) *fakeShim {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.vms[idOf(dir)]
}

func (f *fakeShims) Start(ctx context.Context, dir paths.VM, launch shim.Launch) (Shim, error) {
	if f.startErr != nil {
		return nil, f.startErr
	}
	if f.refuse != nil {
		if err := f.refuse(launch); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	text, _ := json.Marshal(launch)
	if err := errors.Join(os.WriteFile(dir.Launch(), text, 0o600), os.WriteFile(dir.ShimSocket(), nil, 0o600)); err != nil {
		return nil, err
	}
	_ = os.Remove(dir.Exit())
	if r := launch.Restore; r != nil && r.Suspended {
		_ = os.RemoveAll(dir.Suspended())
	}
	s := &fakeShim{shims: f, dir: dir, launch: launch, memory: memoryOf(launch), changed: make(chan struct{}), lost: make(chan struct{})}
	s.status = shim.Status{State: shim.Booting, Reach: &launch.Network.Reach, Ephemeral: launch.Ephemeral, Shim: shim.Identity{PID: 41, BootID: hostBoot()}, VMMPID: os.Getpid()}
	f.mu.Lock()
	f.vms[launch.ID] = s
	f.mu.Unlock()
	if f.guest != nil {
		f.guest(s)
	} else {
		s.becomes(shim.Running)
	}
	return s, nil
}

func (f *fakeShims) Dial(_ context.Context, dir paths.VM) (Shim, error) {
	s := f.of(dir)
	if s == nil || !s.alive() || f.mute {
		return nil, banger.Errorf(banger.NotRunning, "nobody answers")
	}
	return s, nil
}

func (f *fakeShims) Alive(dir paths.VM) (shim.Identity, bool, error) {
	s := f.of(dir)
	if s == nil {
		return shim.Identity{}, false, nil
	}
	return s.status.Shim, s.alive(), nil
}

func (f *fakeShims) KillOrphans(context.Context, string) ([]shim.Resident, error) { return nil, nil }

func (f *fakeShims) KillRecorded(_ context.Context, dir paths.VM) error {
	if f.onKill != nil {
		f.onKill()
	}
	if s := f.of(dir); s != nil {
		s.crash()
	}
	return nil
}

// memoryOf is what a machine begins with in its memory.
func memoryOf(launch shim.Launch) string {
	if launch.Restore == nil || launch.Restore.Memory == nil {
		return ""
	}
	text := make([]byte, 64)
	n, _ := launch.Restore.Memory.ReadAt(text, 0)
	return strings.TrimRight(string(text[:n]), "\x00")
}

type fakeShim struct {
	shims  *fakeShims
	dir    paths.VM
	launch shim.Launch
	memory string // as it began
	grown  int64  // its disk, as it was told

	mu      sync.Mutex
	status  shim.Status
	changed chan struct{}
	lost    chan struct{} // closed when it is killed
	dead    bool
}

func (s *fakeShim) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead
}

func (s *fakeShim) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeShim) becomes(state shim.State) { s.update(func() { s.status.State = state }) }

// ends is the end of a VM as a shim goes through it.
func (s *fakeShim) ends(reason shim.Reason) shim.Exit {
	e := shim.Exit{Reason: reason, At: time.Now(), Message: "because " + string(reason), Console: []string{"last words"}}
	text, _ := json.Marshal(e)
	_ = os.WriteFile(s.dir.Exit(), text, 0o600)
	_ = os.Remove(s.dir.ShimSocket())
	s.update(func() { s.dead, s.status.State, s.status.Exit = true, shim.Ended, &e })
	return e
}

// crash is kill -9.
func (s *fakeShim) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dead {
		s.dead = true
		close(s.lost)
	}
}

func (s *fakeShim) gone() error {
	if s.alive() {
		return nil
	}
	return banger.Errorf(banger.Unavailable, "the shim is gone")
}

func (s *fakeShim) Status(context.Context) (shim.Status, error) {
	if s.shims.onStatus != nil {
		s.shims.onStatus()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, nil
}

func (s *fakeShim) Watch(ctx context.Context, f func(shim.Status)) error {
	for {
		s.mu.Lock()
		status, changed := s.status, s.changed
		s.mu.Unlock()
		f(status)
		if status.State == shim.Ended {
			return nil
		}
		select {
		case <-changed:
		case <-s.lost:
			return errors.New("connection lost")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *fakeShim) Stop(context.Context, time.Duration) (shim.Exit, error) {
	if err := cmp.Or(s.gone(), s.shims.stopErr); err != nil {
		return shim.Exit{}, err
	}
	return s.ends(shim.ReasonStopped), nil
}

func (s *fakeShim) StopIdle(ctx context.Context, timeout, idle time.Duration) (shim.Exit, error) {
	if err := s.refuseUsed(idle); err != nil {
		return shim.Exit{}, err
	}
	return s.Stop(ctx, timeout)
}

func (s *fakeShim) SuspendIdle(ctx context.Context, idle time.Duration) (shim.Exit, error) {
	if err := s.refuseUsed(idle); err != nil {
		return shim.Exit{}, err
	}
	return s.Suspend(ctx)
}

func (s *fakeShim) refuseUsed(idle time.Duration) error {
	if s.shims.onIdle != nil {
		s.shims.onIdle(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.IdleMillis < idle.Milliseconds() || s.status.Streams > 0 {
		return banger.Errorf(banger.Busy, "it is in use")
	}
	return nil
}

func (s *fakeShim) Kill(ctx context.Context, _ syscall.Signal) (shim.Exit, error) {
	if s.shims.stopped {
		<-ctx.Done()
		return shim.Exit{}, ctx.Err()
	}
	if err := s.gone(); err != nil {
		return shim.Exit{}, err
	}
	if f := s.shims.killed; f != nil {
		defer f()
	}
	return s.ends(shim.ReasonKilled), nil
}

func (s *fakeShim) Pause(context.Context) error  { s.becomes(shim.Paused); return s.gone() }
func (s *fakeShim) Resume(context.Context) error { s.becomes(shim.Running); return s.gone() }

// Save writes what the contract says that a shim writes.
func (s *fakeShim) Save(ctx context.Context, r shim.SaveRequest) (shim.Saved, error) {
	if err := s.gone(); err != nil {
		return shim.Saved{}, err
	}
	if s.shims.saveErr != nil {
		return shim.Saved{}, s.shims.saveErr
	}
	if err := s.save(ctx); err != nil {
		return shim.Saved{}, err
	}
	memory := r.Memory
	if memory == "" {
		memory = filepath.Join(r.Dir, "memory")
	}
	err := s.saveMachine(memory, filepath.Join(r.Dir, "state"))
	if err == nil {
		err = layers.Take(ctx, string(s.dir), r.Dir, false, func(name string) error { return nil })
	}
	if f := s.shims.onSave; f != nil && err == nil {
		f()
	}
	return shim.Saved{Token: []byte("token"), PauseMillis: 70, Driver: "fake", Machine: s.launch.Machine}, err
}

// save takes as long as the test wants.
func (s *fakeShim) save(ctx context.Context) error {
	if f := s.shims.saving; f != nil {
		f(ctx, s)
	}
	return errors.Join(ctx.Err(), s.gone())
}

// ended is closed once the VM has ended.
func (s *fakeShim) ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Watch(context.Background(), func(shim.Status) {})
	}()
	return ended
}

// saveMachine writes the memory of a fake machine, which is the name it was
// launched with.
func (s *fakeShim) saveMachine(memory, state string) error {
	f, err := os.OpenFile(memory, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(s.launch.Name); err != nil {
		return err
	}
	text, err := vmm.StateOf("fake", "1", s.launch.Machine).Encode()
	return errors.Join(err, f.Truncate(s.launch.Machine.MemoryMiB<<20), os.WriteFile(state, text, 0o600))
}

// Suspend goes on if who asked for it leaves.
func (s *fakeShim) Suspend(ctx context.Context) (shim.Exit, error) {
	done := make(chan func() (shim.Exit, error), 1)
	go func() {
		e, err := s.suspend(context.WithoutCancel(ctx))
		done <- func() (shim.Exit, error) { return e, err }
	}()
	select {
	case said := <-done:
		return said()
	case <-ctx.Done():
		return shim.Exit{}, ctx.Err()
	}
}

func (s *fakeShim) suspend(ctx context.Context) (shim.Exit, error) {
	if err := s.gone(); err != nil {
		return shim.Exit{}, err
	}
	if err := s.save(ctx); err != nil {
		return shim.Exit{}, err
	}
	if s.shims.saveErr != nil {
		return shim.Exit{}, s.shims.saveErr
	}
	if err := s.commitSuspend(); err != nil {
		return shim.Exit{}, err
	}
	return s.ends(shim.ReasonSuspended), nil
}

// commitSuspend is what a shim does before it ends its VMM.
func (s *fakeShim) commitSuspend() error {
	dir := s.dir.Suspended()
	memory := filepath.Join(dir, "memory")
	if err := errors.Join(os.Mkdir(dir, 0o700), s.saveMachine(memory, filepath.Join(dir, "state"))); err != nil {
		return err
	}
	sum, err := checksum(memory)
	text, _ := json.Marshal(shim.Suspended{
		At: time.Now(), Token: []byte("token"), Driver: "fake", Machine: s.launch.Machine, Sums: shim.Sums{Memory: sum},
	})
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "record.json"), text, 0o600))
}

func (s *fakeShim) GrowDisk(_ context.Context, _ string, size int64) error {
	s.grown = size
	return s.gone()
}

func (s *fakeShim) Allow(_ context.Context, r shim.Reach) (int, error) {
	if err := s.gone(); err != nil {
		return 0, err
	}
	s.update(func() { s.status.Reach = &r })
	return 1, nil
}

func (s *fakeShim) Ports(context.Context) ([]banger.Port, error) {
	return []banger.Port{{Address: "0.0.0.0:80", URL: "http://127.77.0.2:80"}}, s.gone()
}

func (s *fakeShim) Network(context.Context) (shim.NetworkReport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return shim.NetworkReport{Reach: *s.status.Reach, Learned: []string{"example.com:443"}}, nil
}

func (s *fakeShim) Keep(context.Context) error {
	s.update(func() { s.status.Ephemeral = false })
	return s.gone()
}

func (s *fakeShim) GuestHealth(context.Context) (guestwire.Health, error) {
	return guestwire.Health{UptimeSeconds: 7, Problems: []string{"odd"}}, nil
}

func (s *fakeShim) GuestStats(context.Context) (guestwire.GuestStats, error) {
	return guestwire.GuestStats{Processes: 9, MemTotal: 1 << 28}, nil
}

func (s *fakeShim) Close() error { return nil }

// fakeTemplates has the one template that a test gives it, and remembers what
// else was asked.
type fakeTemplates struct {
	mu      sync.Mutex
	fork    func() (*template.Fork, error) // nil: there is none
	wanted  []template.Spec
	removed []string
}

func (f *fakeTemplates) Open(context.Context, string) (*template.Fork, error) {
	if f.fork == nil {
		return nil, banger.Errorf(banger.NotFound, "there is no template")
	}
	return f.fork()
}

func (f *fakeTemplates) Want(s template.Spec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = append(f.wanted, s)
}

func (f *fakeTemplates) Remove(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, id)
	return nil
}
