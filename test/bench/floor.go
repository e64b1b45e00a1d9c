package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banger/internal/ext4"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// limit bounds whatever the benchmark waits for.
const limit = 2 * time.Minute

// floor boots the machine of a VM of banger's without banger around it: QEMU
// with the same files and a copy of the disk, spoken to over the bare link.
type floor struct {
	dir    string
	launch shim.Launch
	m      vmm.Machine
	link   *guestlink.Link
}

func openFloor(vm string) (floor, error) {
	launch, err := shim.ReadLaunch(paths.VM(vm))
	if err != nil {
		return floor{}, err
	}
	if launch.Driver != "qemu" {
		return floor{}, fmt.Errorf("the floor of driver %s is not known here", launch.Driver)
	}
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return floor{}, err
	}
	for i, d := range launch.Machine.Disks {
		if d.ReadOnly {
			continue
		}
		own := filepath.Join(dir, d.Serial)
		if err := emptyLike(own, filepath.Join(vm, filepath.Base(d.Path))); err != nil {
			return floor{}, err
		}
		launch.Machine.Disks[i].Path = own
	}
	launch.Machine.Dir = dir
	return floor{dir: dir, launch: launch}, nil
}

func emptyLike(path, disk string) error {
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	return ext4.MakeEmpty(context.Background(), path, info.Size())
}

func (f *floor) boot() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if f.m, err = (qemu.Driver{}).Boot(ctx, f.launch.Machine, vmm.IO{}); err != nil {
		return err
	}
	if f.link, err = guestlink.Connect(f.m.Agent(), guestwire.NewToken()); err != nil {
		return err
	}
	setup := f.launch.Setup
	setup.TimeNanos = time.Now().UnixNano()
	setup.Entropy = make([]byte, 64)
	_, err = f.link.Setup(ctx, setup)
	return err
}

func (f *floor) exec() error { return execTrue(f.link.Conn()) }

func (f *floor) end() error {
	if err := f.m.Signal(os.Kill); err != nil {
		return err
	}
	<-f.m.Done()
	return nil
}

func (f *floor) bootAndExec() error {
	return errors.Join(f.boot(), f.exec(), f.end())
}

func (f *floor) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := f.link.Shutdown(ctx, 10*time.Second); err != nil {
		return err
	}
	<-f.m.Done()
	return nil
}

func (f *floor) close() error { return os.RemoveAll(f.dir) }

// execTrue is the cheapest possible exec: it checks that the guest really ran
// the command, since a dead guest's closed socket can look like a fast one.
func execTrue(conn *guestwire.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
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

func execThroughShim(vm string) func() error {
	return func() error {
		c, err := shim.Dial(context.Background(), paths.VM(vm))
		if err != nil {
			return err
		}
		defer c.Close()
		return execTrue(c.Conn())
	}
}
