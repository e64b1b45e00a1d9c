package vmmtest

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
)

// testFailedBoot gives the driver descriptions that cannot work.
func (h Harness) testFailedBoot(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		break_ func(*vmm.Config)
		code   banger.Code
		says   string
		kernel bool // only for drivers that look into the kernel
	}{
		{name: "kernel missing", break_: func(c *vmm.Config) { c.Kernel = "gone-kernel" }, code: banger.NotFound, says: "gone-kernel"},
		{name: "initrd missing", break_: func(c *vmm.Config) { c.Initrd = "gone-initrd" }, code: banger.NotFound, says: "gone-initrd"},
		{name: "disk missing", break_: func(c *vmm.Config) { c.Disks[0].Path = "gone-disk" }, code: banger.NotFound, says: "gone-disk"},
		{name: "VMM missing", break_: func(c *vmm.Config) { c.Binary = "/nonexistent/gone-vmm" }, code: banger.NotFound, says: "gone-vmm"},
		{name: "VMM not executable", break_: func(c *vmm.Config) { c.Binary = c.At("disk.img") }, code: banger.Unavailable, says: "disk.img"},
		{name: "no vCPU", break_: func(c *vmm.Config) { c.VCPU = 0 }, code: banger.BadRequest, says: "vCPU"},
		{name: "one serial twice", break_: func(c *vmm.Config) { c.Disks[0].Serial = c.Disks[1].Serial }, code: banger.BadRequest, says: "serial"},
		{name: "serial too long", break_: func(c *vmm.Config) { c.Disks[0].Serial = strings.Repeat("s", 21) }, code: banger.BadRequest, says: "serial"},
		{name: "kernel is none", break_: func(c *vmm.Config) { c.Kernel = "disk.img" }, code: banger.BadRequest, says: "disk.img", kernel: true},
		{name: "address of a network card that is none", break_: func(c *vmm.Config) { c.NIC = &vmm.NIC{MAC: "a,id=b", MTU: 1500} }, code: banger.BadRequest, says: "a,id=b"},
		{name: "network card for too large packets", break_: func(c *vmm.Config) { c.NIC = &vmm.NIC{MAC: guestMAC.String(), MTU: 1 << 16} }, code: banger.BadRequest, says: "65536"},
		{name: "context cancelled", ctx: cancelled, break_: func(*vmm.Config) {}, code: banger.Cancelled, says: "cancel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kernel && h.NoDevices {
				t.Skip("this driver's machines have no kernel")
			}
			cfg := h.prepare(t)
			c.break_(&cfg)
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			before := worldOf(t, cfg.Dir)
			m, err := h.Driver.Boot(c.ctx, cfg, vmm.IO{})
			if err == nil {
				m.Signal(os.Kill)
				<-m.Done()
				t.Fatal("it booted")
			}
			if banger.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "cannot ") {
				t.Errorf("error %q of code %s, want %s and the word %q", err, banger.CodeOf(err), c.code, c.says)
			}
			before.wantBack(t, cfg.Dir)
		})
	}
}

// world is what a failed boot could leave behind: files in the directory,
// processes and descriptors of this process.
type world struct {
	files, processes []string
	sockets          int // and pipes
}

// worldOf sees it once it stands still: what was before may be about to end.
func worldOf(t *testing.T, dir string) world {
	t.Helper()
	w := glance(t, dir)
	for limit := time.Now().Add(answerLimit); time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
		was := w
		if w = glance(t, dir); reflect.DeepEqual(w, was) {
			break
		}
	}
	return w
}

// wantBack waits until there is nothing but what was before.
func (w world) wantBack(t *testing.T, dir string) {
	t.Helper()
	for limit := time.Now().Add(answerLimit); ; time.Sleep(10 * time.Millisecond) {
		now := glance(t, dir)
		begun := slices.DeleteFunc(slices.Clone(now.processes), func(pid string) bool { return slices.Contains(w.processes, pid) })
		if slices.Equal(now.files, w.files) && len(begun) == 0 && now.sockets <= w.sockets {
			return
		}
		if time.Now().After(limit) {
			t.Errorf("the world was\n%+v\nand is\n%+v", w, now)
			return
		}
	}
}

func glance(t *testing.T, dir string) (w world) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		w.files = append(w.files, f.Name())
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task) // a thread may just have ended
		w.processes = append(w.processes, strings.Fields(string(children))...)
	}
	slices.Sort(w.processes)
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, _ := os.Readlink(link); strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "pipe:") {
			w.sockets++
		}
	}
	return w
}
