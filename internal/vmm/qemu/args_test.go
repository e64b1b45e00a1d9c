package qemu

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"banger/internal/vmm"
)

// valuesOf gives what follows each occurrence of option.
func valuesOf(args []string, option string) []string {
	var out []string
	for i, a := range args[:len(args)-1] {
		if a == option {
			out = append(out, args[i+1])
		}
	}
	return out
}

func TestDisksAreGivenByDescriptorInOrder(t *testing.T) {
	args := arguments(vmm.Config{Accel: vmm.TCG, VCPU: 2, MemoryMiB: 512, Kernel: "k", Disks: []vmm.Disk{
		{Serial: "root", Path: "/a,b", ReadOnly: true}, {Serial: "disk", Path: "/c"},
	}}, nil)
	if got := valuesOf(args, "-add-fd"); !slices.Equal(got, []string{"fd=6,set=6", "fd=7,set=7", "fd=8,set=8"}) {
		t.Errorf("descriptors: %q", got)
	}
	if strings.Contains(strings.Join(args, " "), "/a,b") {
		t.Errorf("a path is on the command line: %q", args)
	}
	for i, text := range valuesOf(args, "-blockdev") {
		var node struct {
			Name     string `json:"node-name"`
			ReadOnly bool   `json:"read-only"`
			File     struct {
				Name     string `json:"filename"`
				ReadOnly bool   `json:"read-only"`
			}
		}
		if err := json.Unmarshal([]byte(text), &node); err != nil {
			t.Fatal(err)
		}
		ro := i == 0
		if node.ReadOnly != ro || node.File.ReadOnly != ro || node.File.Name != []string{"/dev/fdset/7", "/dev/fdset/8"}[i] {
			t.Errorf("disk %d: %+v", i, node)
		}
	}
}

func TestKernelCmdlineEndsWithTheCallers(t *testing.T) {
	got := kernelCmdline(vmm.Config{Cmdline: "console=tty0 banger.x=1"}, []string{"tsc=reliable"})
	if !strings.HasPrefix(got, "console=ttyS0 panic=-1 ") || !strings.HasSuffix(got, " tsc=reliable console=tty0 banger.x=1") {
		t.Errorf("command line %q", got)
	}
}

func TestClockIsSetUnderEmulationOnly(t *testing.T) {
	if words, err := clockArgs(vmm.KVM); err != nil || len(words) != 0 {
		t.Errorf("kvm: %q, %v", words, err)
	}
	words, err := clockArgs(vmm.TCG)
	if err != nil || len(words) != 3 || !strings.HasPrefix(words[0], "tsc_early_khz=") || words[1] != "tsc=reliable" {
		t.Errorf("tcg: %q, %v", words, err)
	}
}

func TestTSCFrequencyIsHalfOfBogomips(t *testing.T) {
	for text, want := range map[string]int64{
		"cpu MHz\t\t: 800.000\nbogomips\t: 4499.99\n": 2249995,
		"bogomips\t: 5808.00\nbogomips\t: 1.00\n":     2904000,
		"bogomips : lots\n":                           0,
		"bogomips : 0.00\n":                           0,
		"model name : something\n":                    0,
	} {
		if got, err := tscKHz(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}
