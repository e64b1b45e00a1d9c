package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Manager implements Service.
type Manager struct {
	Deps

	locks locks // one per VM, held by whatever changes it

	mu      sync.Mutex
	live    map[string]*live
	closed  bool
	running sync.WaitGroup // what goes began

	ctx    context.Context // of what goes began
	cancel context.CancelFunc

	ownerGrace   time.Duration                                    // how long an ephemeral VM may be without an owner
	readyTimeout time.Duration                                    // for a guest to come up, and
	grace        func(pid int, limit time.Duration) time.Duration // more where its VMM waits: vmm.Grace
	shimTimeout  time.Duration                                    // for a shim to answer
}

var _ Service = (*Manager)(nil)

// New makes a Manager. It does nothing yet: Reconcile comes first, then Run.
func New(d Deps) *Manager {
	m := &Manager{
		Deps: d, live: map[string]*live{},
		ownerGrace: 15 * time.Second, readyTimeout: shim.DefaultReadyTimeout, grace: vmm.Grace, shimTimeout: 2 * time.Second,
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Run implements Service. It returns once nothing of the Manager's goes on.
func (m *Manager) Run(ctx context.Context) error {
	minute := time.NewTicker(tendInterval)
	defer minute.Stop()
	interval := m.sampleInterval(config.LeastStatsPoll)
	sample := time.NewTimer(interval)
	defer sample.Stop()
	for {
		select {
		case <-ctx.Done():
			m.close()
			return nil
		case <-sample.C:
			m.sampleAll()
			interval = m.sampleInterval(interval)
			sample.Reset(interval)
		case <-minute.C:
			m.tend(ctx)
		}
	}
}

func (m *Manager) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.running.Wait()
}

// List implements Service.
func (m *Manager) List(ctx context.Context) ([]View, error) {
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	names, err := m.imageNames(ctx)
	if err != nil {
		return nil, err
	}
	dirs, err := m.dirNames()
	if err != nil {
		return nil, err
	}
	views := make([]View, len(rows))
	for i, row := range rows {
		views[i] = m.view(row, dirs[row.ID], names)
	}
	return views, nil
}

// Get implements Service.
func (m *Manager) Get(ctx context.Context, id string) (View, error) {
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return View{}, err
	}
	names, err := m.imageNames(ctx)
	if err != nil {
		return View{}, err
	}
	_, err = os.Lstat(string(m.Dirs.VM(id)))
	return m.view(row, err == nil, names), nil
}

func (m *Manager) imageNames(ctx context.Context) (map[string]string, error) {
	images, err := m.Store.Images(ctx)
	names := make(map[string]string, len(images))
	for _, i := range images {
		names[i.ID] = i.Name
	}
	return names, err
}

// dirNames lists the directories of all VMs with one call, where asking for
// each would cost as many as there are VMs.
func (m *Manager) dirNames() (map[string]bool, error) {
	f, err := os.Open(m.Dirs.VMs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(err)
	}
	defer f.Close()
	list, err := f.Readdirnames(-1)
	names := make(map[string]bool, len(list))
	for _, name := range list {
		names[name] = true
	}
	return names, fileError(err)
}

// view joins a row with what is known of the VM now.
func (m *Manager) view(row banger.VM, hasDir bool, imageNames map[string]string) View {
	o, status := m.observe(row, hasDir)
	v := View{VM: row, ImageName: imageNames[row.ImageID], Foreign: foreign(row)}
	v.State, v.LastError = Observe(row, o)
	visited := row.Runtime.Visited && v.State.Live()
	if visited { // which is for one alone
		v.State = banger.StateStopped
	}
	if v.ImageName == "" {
		v.ImageName = row.ImageID
	}
	if !v.Foreign {
		v.Dir = string(m.Dirs.VM(row.ID))
	}
	if status != nil && (visited || v.State.Live()) {
		if !visited {
			v.HostAddress = status.Address
		}
		v.ShimPID, v.VMMPID = status.Shim.PID, status.VMMPID
		v.BootID, v.GuestKernel = status.Guest.BootID, status.Guest.Kernel
		v.Isolation, v.Template, v.Trace = status.Isolation, status.Template, status.Trace
		v.Restored, v.NotRestored = status.Restored, status.NotRestored
		if status.LastTouched.After(v.LastTouchedAt) {
			v.LastTouchedAt = status.LastTouched
		}
		if l := m.liveOf(row.ID); l != nil {
			v.Stats, _ = l.withSample(v.Stats)
		}
	}
	return v
}

// observe gathers what Observe needs. It looks at the disk only for a VM that
// should run and does not, or is suspended.
func (m *Manager) observe(row banger.VM, hasDir bool) (Observation, *shim.Status) {
	if l := m.liveOf(row.ID); l != nil {
		if status, gone, _ := l.seen(); !gone {
			return Observation{Dir: true, Alive: true, Status: status}, status
		}
		row.State = banger.StateRunning
	}
	o := Observation{Dir: hasDir}
	if hasDir && (row.State.Live() || row.State == banger.StateSuspended) && !foreign(row) {
		o = m.look(m.Dirs.VM(row.ID))
	}
	return o, nil
}

// look sees what a VM's directory tells.
func (m *Manager) look(dir paths.VM) Observation {
	o := Observation{Dir: true}
	id, alive, err := m.Shims.Alive(dir)
	o.Alive, o.Ran = alive, err != nil || id.PID != 0
	if err == nil {
		o.HostRestarted = id.BootID != "" && id.BootID != hostBoot()
	}
	was, err := shim.ReadSuspended(dir)
	if err != nil {
		m.Log.Warn("cannot tell whether a VM is suspended", "dir", dir, "err", err)
	}
	o.Suspended = was != nil
	if o.Exit, err = shim.ReadExit(dir); err != nil {
		m.Log.Warn("cannot read how a VM ended", "dir", dir, "err", err)
	}
	return o
}

// hostBoot is the id of the host's present boot.
var hostBoot = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(text) == 0 {
		return ""
	}
	return string(text[:len(text)-1])
})
