package nested

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// figuresVariable asks for figures.
const figuresVariable = "BANGER_BENCH_NESTED"

// handTAP is a card for a Firecracker that is started by hand: banger makes its own.
const handTAP = "hand0"

// TestFigures prints what banger costs on each VMM under KVM, beside the same VMM by hand. The
// ratios are of one run, in turn; the rest is that of an emulated processor.
func TestFigures(t *testing.T) {
	if os.Getenv(figuresVariable) == "" {
		t.Skip("takes long: make bench-kvm runs it")
	}
	count := countOf(t)
	o := startOuter(t)
	o.must(t, "modprobe kvm_amd && chmod 666 /dev/kvm /dev/net/tun")
	o.must(t, "ip tuntap add dev "+handTAP+" mode tap user "+person+" vnet_hdr && ip link set "+handTAP+" up")
	o.giveBench(t)
	for _, d := range o.drivers {
		t.Run(d.name, func(t *testing.T) {
			cmd := o.command(t.Context(), person, fmt.Sprintf(
				"cd /opt/bench && BANGER_TEST_CACHE=/opt/bench/cache ./bench -vmm %s -n %d -tap %s -only coldhand,warmhand,cpu", d.name, count, handTAP))
			cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// giveBench puts the benchmark into the VM. It calls its installation's home "bench", which is the
// person's.
func (o *outer) giveBench(t *testing.T) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bench")
	t.Setenv("CGO_ENABLED", "0")
	output(t, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, "banger/test/bench")
	o.must(t, "mkdir -p /opt/bench/bin /opt/bench/cache && ln -s /usr/local/bin/banger /opt/bench/bin/")
	o.banger(t, "cp", dir, "outer:/opt/bench/bench")
	o.must(t, "mv ~"+person+" /opt/bench/cache/bench && ln -s /opt/bench/cache/bench ~"+person)
}
