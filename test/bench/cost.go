package main

import (
	"context"
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

func (b *benchmark) idle() error {
	const window = 60 * time.Second
	vm, err := b.up()
	if err != nil {
		return err
	}
	if err := b.command("vm", "set", "bench", "--nat")(); err != nil {
		return err
	}
	defer func() { _, _ = b.output("vm", "set", "bench", "--no-nat") }()
	shim0, vmm0 := cpuTime(vm.ShimPID), cpuTime(vm.VMMPID)
	if err := b.pause(window); err != nil {
		return err
	}
	shim, vmm := share(cpuTime(vm.ShimPID)-shim0, window), share(cpuTime(vm.VMMPID)-vmm0, window)
	row{what: "CPU of an idle VM, --nat, over 60 s (floor: its VMM)", n: 1, unit: percent, figure: shim + vmm, most: 1.5, floor: vmm}.print()
	return nil
}

// share is how much of one core was used, in percent.
func share(used, window time.Duration) float64 { return 100 * float64(used) / float64(window) }

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
	vm, err := b.up()
	if err != nil {
		return err
	}
	var daemon struct {
		PID int `json:"pid"`
	}
	if err := b.answer(&daemon, "daemon", "status", "--json"); err != nil {
		return err
	}
	row{what: "resident memory of a shim", n: 1, unit: mib, figure: memoryOf(vm.ShimPID, "status", "VmRSS:"), most: 25}.print()
	row{what: "resident memory of the daemon", n: 1, unit: mib, figure: memoryOf(daemon.PID, "status", "VmRSS:"), most: 40}.print()
	return nil
}

// memoryOf reads a line of a file of /proc/PID, in MiB.
func memoryOf(pid int, file, key string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	_, rest, _ := strings.Cut("\n"+string(text), "\n"+key)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(fields[0])
	return float64(kib) / 1024
}

// owned is the memory of a VM and its shim: what several share counts in parts.
func (vm running) owned() float64 {
	return memoryOf(vm.VMMPID, "smaps_rollup", "Pss:") + memoryOf(vm.ShimPID, "smaps_rollup", "Pss:")
}

func (b *benchmark) list() error {
	rows, err := manyRows(b.w)
	if err != nil {
		return err
	}
	defer rows.Close()
	many := &benchmark{ctx: b.ctx, w: rows}
	all, err := inTurn(b.often(quick), b.command("version"), many.command("ps", "-a"))
	if err == nil {
		medians("ps -a with 1,000 rows (floor: version)", 60*time.Millisecond, all[1], all[0]).print()
	}
	return err
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

// writtenBy is how many bytes a process has written so far, to files and connections.
func writtenBy(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	_, rest, _ := strings.Cut(string(text), "wchar: ")
	number, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseInt(number, 10, 64)
	return n
}
