// Package bench measures what banger costs. Its floor is the machine of a VM of
// banger's without banger around it: the VMM with the same files, spoken to over
// the bare link. Its figures are banger's own commands, run as a person runs them.
//
// It knows the driver and the wire, and nothing of rows, the daemon or how
// figures are shown.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/ext4"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
)

// limit bounds each thing a floor does.
const limit = 2 * time.Minute

// Floor is a machine without banger around it, one at a time.
type Floor struct {
	ctx    context.Context // ends whatever goes on
	dir    string
	driver vmm.Driver
	launch shim.Launch
	m      vmm.Machine
	link   *guestlink.Link
	token  [guestwire.TokenLen]byte // of the link
}

// floorPrefix begins the name of a floor's directory.
const floorPrefix = "banger-bench-"

// IsFloor says whether a directory is a floor's, where its VMM works.
func IsFloor(dir string) bool { return strings.HasPrefix(filepath.Base(dir), floorPrefix) }

// OpenFloor prepares the machine of a VM that was launched. It has a directory and
// an empty disk of its own until Close. The end of ctx ends whatever goes on.
func OpenFloor(ctx context.Context, vm paths.VM) (*Floor, error) {
	launch, err := shim.ReadLaunch(vm)
	if err != nil {
		return nil, err
	}
	driver, err := driverOf(launch)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", floorPrefix)
	if err != nil {
		return nil, err
	}
	f := &Floor{ctx: ctx, dir: dir, driver: driver, launch: launch}
	f.launch.Machine.Dir = dir
	for i, d := range f.launch.Machine.Disks {
		if d.ReadOnly {
			continue
		}
		own := filepath.Join(dir, d.Serial)
		if err := emptyLike(ctx, own, filepath.Join(string(vm), filepath.Base(d.Path))); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.launch.Machine.Disks[i].Path, f.launch.Machine.Disks[i].Layers = own, nil
	}
	return f, nil
}

func driverOf(l shim.Launch) (vmm.Driver, error) {
	for _, d := range []vmm.Driver{qemu.Driver{}, firecracker.Driver{}} {
		if l.Driver == d.Name() {
			return d, nil
		}
	}
	return nil, fmt.Errorf("the floor of driver %s is not known here", l.Driver)
}

func emptyLike(ctx context.Context, path, disk string) error {
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	return ext4.MakeEmpty(ctx, path, info.Size())
}

// Boot boots the machine until its guest is ready.
func (f *Floor) Boot() error {
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	var err error
	if f.m, err = f.driver.Boot(ctx, f.launch.Machine, vmm.IO{}); err != nil {
		return err
	}
	if err = f.join(ctx, f.m, func() (*guestwire.Conn, error) { return guestwire.Dial(f.m.Agent(), f.token, nil) }); err == nil {
		setup := f.launch.Setup
		setup.TimeNanos = time.Now().UnixNano()
		setup.Entropy = make([]byte, 64)
		_, err = f.link.Setup(ctx, setup)
	}
	if err != nil {
		return errors.Join(err, f.End())
	}
	return nil
}

// join begins a link with a token of its own. The end of ctx ends the wait.
func (f *Floor) join(ctx context.Context, m vmm.Machine, dial func() (*guestwire.Conn, error)) error {
	defer context.AfterFunc(ctx, func() { _ = m.Agent().Close() })()
	f.token = guestwire.NewToken()
	conn, err := dial()
	if err != nil {
		return fmt.Errorf("the guest does not answer: %w", err)
	}
	f.link = guestlink.Over(conn)
	return nil
}

// UseOwnNetwork has the machine's card lead into the network that QEMU has of its
// own, where the host's 127.0.0.1 is 10.0.2.2.
func (f *Floor) UseOwnNetwork() {
	f.driver = qemu.Measured()
	f.launch.Machine.NIC = &vmm.NIC{MAC: f.launch.Machine.NIC.MAC, MTU: 1500}
	f.launch.Setup.Network = f.launch.Network.Place()
	f.launch.Setup.Network.Address = [4]byte{10, 0, 2, 15}
	f.launch.Setup.Network.Gateway = [4]byte{10, 0, 2, 2}
	f.launch.Setup.Network.GatewayMAC = [6]byte{0x52, 0x55, 10, 0, 2, 2}
}

// Output runs a command in the guest and gives what it writes.
func (f *Floor) Output(argv ...string) (string, error) {
	s, err := f.link.Conn().Open(guestwire.KindExec, guestwire.Exec{Argv: argv}.Append(nil))
	if err != nil {
		return "", err
	}
	defer s.Reset()
	go func() { _, _ = io.Copy(os.Stderr, s.Reader(guestwire.Stderr)) }()
	out, err := io.ReadAll(s.Reader(guestwire.Stdout))
	if err != nil {
		return "", err
	}
	body, err := s.Wait(f.ctx)
	if err != nil {
		return "", err
	}
	exit, err := guestwire.ParseExit(body)
	if err == nil && exit.Status != 0 {
		err = fmt.Errorf("%q gave status %d: %s", argv, exit.Status, exit.Message)
	}
	return string(out), err
}

// Exec runs a command in the guest.
func (f *Floor) Exec() error { return RunTrue(f.ctx, f.link.Conn()) }

// End cuts the machine's power.
func (f *Floor) End() error { return end(f.m) }

func end(m vmm.Machine) error {
	if err := m.Signal(os.Kill); err != nil {
		return err
	}
	<-m.Done()
	_ = m.Agent().Close()
	if c := m.Cable(); c != nil {
		_ = c.Close()
	}
	return nil
}

// BootAndExec is a cold run.
func (f *Floor) BootAndExec() error {
	if err := f.Boot(); err != nil {
		return err
	}
	return errors.Join(f.Exec(), f.End())
}

// Shutdown ends the guest in good order.
func (f *Floor) Shutdown() error {
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	if err := f.link.Shutdown(ctx, 10*time.Second); err != nil {
		return err
	}
	<-f.m.Done()
	return nil
}

// RestoreAndExec is a warm run: a template restored by hand, and a command.
func (f *Floor) RestoreAndExec(from *template.Fork) error {
	cfg := f.launch.Machine
	cfg.Disks = slices.Clone(cfg.Disks)
	for i, d := range cfg.Disks {
		if d.ReadOnly {
			continue
		}
		// A file of its own each time: to remove the last one's blocks may take
		// longer than all the rest.
		cfg.Disks[i].Path = filepath.Join(f.dir, "disk-"+banger.NewID())
		if err := ext4.Copy(f.ctx, from.Disk(), cfg.Disks[i].Path); err != nil {
			return err
		}
	}
	source := vmm.Source{Memory: from.Memory, State: from.State()}
	return f.restoreAndExec(cfg, source, [guestwire.TokenLen]byte(from.Token))
}

func (f *Floor) restoreAndExec(cfg vmm.Config, from vmm.Source, token [guestwire.TokenLen]byte) error {
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	m, err := f.driver.Restore(ctx, cfg, from, vmm.IO{})
	if err != nil {
		return err
	}
	child := &Floor{ctx: f.ctx, m: m}
	if err = child.join(ctx, m, func() (*guestwire.Conn, error) {
		return guestwire.Redial(m.Agent(), token, child.token, nil)
	}); err == nil {
		err = child.Exec()
	}
	return errors.Join(err, child.End())
}

// Close ends the machine, if it runs, and removes what the floor had.
func (f *Floor) Close() error {
	if f.m != nil {
		_ = f.End()
	}
	return os.RemoveAll(f.dir)
}

// RunTrue is the cheapest possible exec: it checks that the guest really ran
// the command, since a dead guest's closed socket can look like a fast one.
func RunTrue(ctx context.Context, conn *guestwire.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := conn.Call(ctx, guestwire.KindExec, guestwire.Exec{Argv: []string{"/bin/true"}}.Append(nil))
	if err != nil {
		return err
	}
	exit, err := guestwire.ParseExit(body)
	if err == nil && exit.Status != 0 {
		err = fmt.Errorf("true gave status %d: %s", exit.Status, exit.Message)
	}
	return err
}
