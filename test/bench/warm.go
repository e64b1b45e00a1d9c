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
	"banger/internal/template"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// warmFloor restores a template of banger's by hand.
type warmFloor struct {
	floor
	fork *template.Fork
}

func (b *benchmark) warmRun() error {
	cache := template.Cache{Dir: filepath.Join(b.w.Home, ".cache", "banger", "templates")}
	t, err := awaitTemplate(cache)
	if err != nil {
		return err
	}
	pool := template.Pool{Cache: cache}
	defer pool.Close()
	f := &warmFloor{floor: b.floor}
	if f.fork, err = pool.Open(context.Background(), t.ID); err != nil {
		return err
	}
	defer f.fork.Close()
	var figures, floors []time.Duration
	for range quickFor { // in turn, so that both see the same machine
		one, err := timed(1, f.restoreAndExec)
		if err != nil {
			return err
		}
		floors = append(floors, one...)
		if one, err = timed(1, b.command("run", "--rm", "--", "true")); err != nil {
			return err
		}
		figures = append(figures, one...)
	}
	timeRow("warm vm run --rm -- true", 350*time.Millisecond, figures, floors)
	return nil
}

// awaitTemplate waits for the template of the first cold boot.
func awaitTemplate(c template.Cache) (template.Template, error) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Second) {
		all, err := c.List()
		if err != nil {
			return template.Template{}, err
		}
		if len(all) > 0 {
			return all[0], nil
		}
	}
	return template.Template{}, errors.New("no template was made")
}

func (f *warmFloor) restoreAndExec() error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cfg := f.launch.Machine
	for _, d := range cfg.Disks {
		if d.ReadOnly {
			continue
		}
		_ = os.Remove(d.Path)
		if err := ext4.Copy(ctx, f.fork.Disk(), d.Path); err != nil {
			return err
		}
	}
	m, err := (qemu.Driver{}).Restore(ctx, cfg, vmm.Source{Memory: f.fork.Memory, State: f.fork.State()}, vmm.IO{})
	if err != nil {
		return err
	}
	f.m = m
	conn, err := guestwire.Redial(m.Agent(), [guestwire.TokenLen]byte(f.fork.Token), guestwire.NewToken(), nil)
	if err != nil {
		return fmt.Errorf("the restored guest does not answer: %w", errors.Join(err, f.end()))
	}
	f.link = guestlink.Over(conn)
	return errors.Join(f.exec(), f.end())
}
