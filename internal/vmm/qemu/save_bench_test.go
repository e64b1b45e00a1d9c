package qemu

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// BenchmarkSave measures how long a machine stands still while it is saved, and
// the whole Save, with so many MiB of pages of its own: one that booted, one
// that was restored, as most are, and one that writes to memory meanwhile.
//
//	go test -run XXX -bench Save -benchtime 5x ./internal/vmm/qemu
func BenchmarkSave(b *testing.B) {
	for _, mib := range []int64{150, 300, 450, 1024} {
		for _, kind := range []string{"booted", "restored", "busy"} {
			b.Run(fmt.Sprintf("%s/%dMiB", kind, mib), func(b *testing.B) { benchSave(b, kind, mib) })
		}
	}
}

// benchBooted is about what a guest touches until it speaks.
const benchBooted = 40

func benchSave(b *testing.B, kind string, mib int64) {
	cfg := vmmtest.GuestConfig(b, mustFind(b), vmm.TCG)
	cfg.MemoryMiB = max(512, mib+256)
	m := benchBoot(b, cfg)
	if kind == "restored" {
		m = benchAgain(b, m, cfg)
	}
	m.ask("fill %d 1", mib-benchBooted)
	if kind == "busy" {
		m.ask("churn %d disk", mib/8)
	}
	var pauses, work, totals, all []time.Duration
	for b.Loop() {
		begun, used := time.Now(), cpuTime(b)
		pause, cpu := m.save()
		pauses, work, totals = append(pauses, pause), append(work, cpu), append(totals, time.Since(begun))
		all = append(all, cpuTime(b)-used)
	}
	for name, times := range map[string][]time.Duration{"pause": pauses, "pause-cpu": work, "total": totals, "total-cpu": all} {
		slices.Sort(times)
		b.ReportMetric(float64(times[0].Microseconds())/1000, "min-"+name+"-ms")
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "med-"+name+"-ms")
	}
	b.ReportMetric(0, "ns/op")
}

type benchMachine struct {
	vmm.Machine
	b     *testing.B
	lines *bufio.Reader
}

func newBenchMachine(b *testing.B, m vmm.Machine, err error) *benchMachine {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		m.Signal(os.Kill)
		<-m.Done()
		m.Agent().Close()
	})
	return &benchMachine{m, b, bufio.NewReader(m.Agent())}
}

func benchBoot(b *testing.B, cfg vmm.Config) *benchMachine {
	cfg.Dir, cfg.Disks = b.TempDir(), []vmm.Disk{{Serial: "disk", Path: "disk"}}
	if err := os.WriteFile(cfg.At("disk"), make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	booted, err := Driver{}.Boot(b.Context(), cfg, vmm.IO{})
	m := newBenchMachine(b, booted, err)
	m.read()
	return m
}

// benchAgain is the machine restored from itself.
func benchAgain(b *testing.B, m *benchMachine, cfg vmm.Config) *benchMachine {
	cfg.Dir, cfg.Disks = b.TempDir(), []vmm.Disk{{Serial: "disk", Path: "disk"}}
	memory, err := vmm.NewMemory()
	if err != nil {
		b.Fatal(err)
	}
	defer memory.Close()
	state := filepath.Join(b.TempDir(), "state")
	err = m.Save(b.Context(), vmm.Saved{Into: memory, State: state}, func() error {
		return os.WriteFile(cfg.At("disk"), make([]byte, 1<<20), 0o600)
	})
	if err == nil {
		err = vmm.Seal(memory)
	}
	if err != nil {
		b.Fatal(err)
	}
	m.Signal(os.Kill)
	restored, err := Driver{}.Restore(b.Context(), cfg, vmm.Source{Memory: memory, State: state}, vmm.IO{})
	return newBenchMachine(b, restored, err)
}

func (m *benchMachine) ask(format string, args ...any) {
	m.b.Helper()
	if _, err := fmt.Fprintf(m.Agent(), format+"\n", args...); err != nil {
		m.b.Fatal(err)
	}
	m.read()
}

func (m *benchMachine) read() {
	m.b.Helper()
	if err := m.Agent().SetDeadline(time.Now().Add(soakLimit)); err != nil {
		m.b.Fatal(err)
	}
	if line, err := m.lines.ReadString('\n'); err != nil || strings.HasPrefix(line, "error") {
		m.b.Fatalf("the guest said %q: %v", line, err)
	}
}

// save saves the machine into memory and lets it run on. It says how long it
// stood still, and what we worked in that time, which a busy host changes less.
func (m *benchMachine) save() (pause, cpu time.Duration) {
	memory, err := vmm.NewMemory()
	if err != nil {
		m.b.Fatal(err)
	}
	defer memory.Close()
	var begun time.Time
	err = m.Save(m.b.Context(), vmm.Saved{
		Into: memory, State: filepath.Join(m.b.TempDir(), "state"),
		Pausing: func() { begun, cpu = time.Now(), cpuTime(m.b) },
	}, nil)
	if err != nil {
		m.b.Fatal(err)
	}
	if err := m.Resume(m.b.Context()); err != nil {
		m.b.Fatal(err)
	}
	return time.Since(begun), cpuTime(m.b) - cpu
}

func cpuTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
