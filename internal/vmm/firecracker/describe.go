package firecracker

import (
	"debug/elf"
	"fmt"
	"strings"

	"banger"
	"banger/internal/vmm"
)

// What a machine's devices are called, the same in each, so that a saved one fits.
const (
	cardID   = "card"
	cardName = "card0" // the TAP, in a network namespace of its own
	guestCID = 3
)

// agentPort is the guest's vsock port at which the agent listens: one that takes a
// capability to listen at, so that nothing else in the guest can be taken for it.
const agentPort = 52

// machineBuild is raised when a machine of the same description gets other devices, or the
// same in another order, or its agent waits elsewhere: what was saved before cannot be taken
// up by it.
const machineBuild = 2

// description is the calls that make a machine and start it.
func description(cfg vmm.Config, h *home) []request {
	calls := []request{
		{"PUT", "/machine-config", machineConfig{VCPUs: cfg.VCPU, MemoryMiB: cfg.MemoryMiB}},
		{"PUT", "/boot-source", bootSource{Kernel: cfg.Kernel, Initrd: cfg.Initrd, Cmdline: kernelCmdline(cfg)}},
	}
	for i, d := range cfg.Disks {
		calls = append(calls, request{"PUT", "/drives/" + driveID(i), drive{
			ID: driveID(i), Path: diskPath(i), ReadOnly: d.ReadOnly,
			Cache: "Writeback", // else the guest's flushes would not reach the file
		}})
	}
	if cfg.NIC != nil {
		calls = append(calls, request{"PUT", "/network-interfaces/" + cardID, networkInterface{
			ID: cardID, MAC: cfg.NIC.MAC, Host: cardName, MTU: cfg.NIC.MTU,
		}})
	}
	return append(calls,
		request{"PUT", "/vsock", vsock{CID: guestCID, Path: h.inside(vsockName)}},
		request{"PUT", "/entropy", entropy{}},
		request{"PUT", "/actions", action{"InstanceStart"}},
	)
}

func driveID(i int) string  { return fmt.Sprintf("disk%d", i) }
func diskPath(i int) string { return inherited(fdDisks + i) }

// inherited is a path by which Firecracker opens a descriptor of its own again.
func inherited(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// kernelCmdline puts the driver's part before the caller's, which may override it.
func kernelCmdline(cfg vmm.Config) string {
	var serials []string
	for _, d := range cfg.Disks {
		serials = append(serials, d.Serial)
	}
	words := []string{
		"console=ttyS0",
		"panic=-1",          // reset at once, which ends Firecracker
		"reboot=k",          // by the keyboard's controller: nothing else of Firecracker's ends it
		"quiet",             // a serial character is a trap into the VMM
		"cryptomgr.notests", // self-tests of algorithms nobody uses yet
		"8250.nr_uarts=1",   // do not probe for three that are not there
		"i8042.noaux", "i8042.nomux", "i8042.dumbkbd",
		fmt.Sprintf("banger.vsock=%d", agentPort),
		"banger.disks=" + strings.Join(serials, ","),
	}
	if cfg.Cmdline != "" {
		words = append(words, cfg.Cmdline)
	}
	return strings.Join(words, " ")
}

// checkKernel refuses what Firecracker would refuse later, in words that name no file.
func checkKernel(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return banger.Errorf(banger.BadRequest, "the kernel %s is not an ELF vmlinux: %w", path, err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Entry == 0 {
		return banger.Errorf(banger.BadRequest, "the kernel %s is for another processor", path)
	}
	return nil
}
