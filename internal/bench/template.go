package bench

import (
	"context"
	"time"

	"banger/internal/template"
	"banger/internal/vmm"
)

// Template waits until there is a template of the VM's shape: the one it is a
// fork of, or the one that is made because it had to boot.
func (f *Floor) Template(ctx context.Context, pool *template.Pool) (*template.Fork, error) {
	vm := f.launch
	if vm.Restore != nil && vm.Restore.Template != "" {
		return pool.Open(ctx, vm.Restore.Template)
	}
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		all, err := pool.Cache.List()
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			if t.CreatedAt.After(vm.Began) && t.Key.Driver == vm.Driver && madeFor(t.Key, vm.Machine) {
				return pool.Open(ctx, t.ID)
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func madeFor(k template.Key, m vmm.Config) bool {
	return k.Cmdline == m.Cmdline && k.VCPU == m.VCPU && k.MemoryMiB == m.MemoryMiB && k.Accel == m.Accel
}
