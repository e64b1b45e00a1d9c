package qemu

import (
	"encoding/json"
	"fmt"
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
	disks := []vmm.Disk{
		{Serial: "root", Path: "/a,b", ReadOnly: true},
		{Serial: "disk", Path: "/c", Layers: []string{"/d", "/e"}},
		{Serial: "plain", Path: "/f"},
	}
	args := diskArgs(disks, 10, "auto")
	if got := valuesOf(args, "-add-fd"); !slices.Equal(got, []string{
		"fd=10,set=10",
		"fd=11,set=11", "fd=12,set=12", "fd=13,set=13", "fd=14,set=13,opaque=writer",
		"fd=15,set=15", "fd=16,set=15,opaque=writer",
	}) {
		t.Errorf("descriptors: %q", got)
	}
	if strings.Contains(strings.Join(args, " "), "/a,b") {
		t.Errorf("a path is on the command line: %q", args)
	}
	var got []string
	for _, text := range valuesOf(args, "-blockdev") {
		var node struct {
			Name     string `json:"node-name"`
			Driver   string `json:"driver"`
			ReadOnly bool   `json:"read-only"`
			Backing  string `json:"backing"`
			File     struct {
				Name string `json:"filename"`
			}
		}
		if err := json.Unmarshal([]byte(text), &node); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s above=%q ro=%v", node.Name, node.Driver, node.File.Name, node.Backing, node.ReadOnly))
	}
	if want := []string{
		`disk-root raw /dev/fdset/10 above="" ro=true`,
		`disk-disk raw /dev/fdset/11 above="" ro=true`,
		`disk-disk.1 qcow2 /dev/fdset/12 above="disk-disk" ro=true`,
		`disk-disk.2 qcow2 /dev/fdset/13 above="disk-disk.1" ro=false`,
		`disk-plain raw /dev/fdset/15 above="" ro=false`,
	}; !slices.Equal(got, want) {
		t.Errorf("nodes:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if drives := valuesOf(args, "-device"); len(drives) != 3 || !strings.Contains(drives[1], `"drive":"disk-disk.2"`) {
		t.Errorf("devices: %q", drives)
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
	if err != nil || len(words) != 4 || !strings.HasPrefix(words[0], "tsc_early_khz=") || words[1] != "tsc=reliable" || words[3] != "banger.timer_khz=62500" {
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
