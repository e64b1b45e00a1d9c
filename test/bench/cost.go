package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/store"
	"banger/test/world"
)

// running is what `vm show` says of processes.
type running struct {
	Dir     string `json:"dir"`
	ShimPID int    `json:"shim_pid"`
	VMMPID  int    `json:"vmm_pid"`
}

func look(w *world.World, name string) (vm running, err error) {
	r := w.Banger("vm", "show", name)
	if r.Status != 0 {
		return vm, fmt.Errorf("banger vm show: %s", r.Stderr)
	}
	return vm, json.Unmarshal([]byte(r.Stdout), &vm)
}

func (b *benchmark) idle() error {
	const window = 60 * time.Second
	shim0, vmm0 := cpuTime(b.vm.ShimPID), cpuTime(b.vm.VMMPID)
	time.Sleep(window)
	shim, vmm := cpuTime(b.vm.ShimPID)-shim0, cpuTime(b.vm.VMMPID)-vmm0
	percent := func(d time.Duration) string { return fmt.Sprintf("%.2f %%", 100*float64(d)/float64(window)) }
	row("CPU of an idle VM over 60 s (floor: its VMM)", "1.50 %", percent(shim+vmm), percent(vmm), "-")
	return nil
}

// cpuTime is the CPU time of a process so far, from /proc/PID/stat in ticks of
// 10 ms.
func cpuTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (b *benchmark) memory() error {
	r := b.w.Banger("daemon", "status", "--json")
	var daemon struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &daemon); err != nil || daemon.PID == 0 {
		return fmt.Errorf("banger daemon status: %s%s", r.Stdout, r.Stderr)
	}
	row("resident memory of a shim", "25 MiB", resident(b.vm.ShimPID), "-", "-")
	row("resident memory of the daemon", "40 MiB", resident(daemon.PID), "-", "-")
	return nil
}

func resident(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return "gone"
	}
	kib, _ := strconv.Atoi(fields[0])
	return fmt.Sprintf("%.1f MiB", float64(kib)/1024)
}

// manyRows is an installation with 1,000 VM rows of another tool: they list as
// any row does, and have no directory that could be missing.
func manyRows(w *world.World) (*world.World, error) {
	many := &world.World{Home: filepath.Join(filepath.Dir(w.Home), "bench-rows"), Bin: w.Bin}
	if err := os.RemoveAll(many.Home); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(many.State(), 0o700); err != nil {
		return nil, err
	}
	ctx := context.Background()
	db, err := store.Open(ctx, filepath.Join(many.State(), "state.db"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	image := banger.Image{ID: banger.NewID(), Name: "rows"}
	if err := db.UpsertImage(ctx, image); err != nil {
		return nil, err
	}
	for i := range 1000 {
		vm := banger.VM{ID: banger.NewID(), Name: fmt.Sprintf("row-%d", i), ImageID: image.ID, State: banger.StateStopped}
		if _, err := db.ReserveVM(ctx, vm, "10.77.0.0/16"); err != nil {
			return nil, err
		}
	}
	return many, nil
}
