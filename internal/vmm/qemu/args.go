package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"banger/internal/vmm"
)

// object is a value of QEMU's JSON options: in them no character of a name has
// a meaning of its own.
type object map[string]any

// arguments is QEMU's command line. clock is the part of the kernel's that
// depends on the host.
func arguments(cfg vmm.Config, clock []string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", // a reset ends QEMU: the shim decides what follows
		"-S",         // until the monitor listens
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "microvm,acpi=on,pcie=off,usb=off,graphics=off,dump-guest-core=off",
		"-smp", strconv.Itoa(cfg.VCPU),
		"-m", strconv.FormatInt(cfg.MemoryMiB, 10),
		"-global", "virtio-mmio.force-legacy=off",
		"-kernel", cfg.Kernel,
		"-append", kernelCmdline(cfg, clock),
	}
	if cfg.Initrd != "" {
		args = append(args, "-initrd", cfg.Initrd)
	}
	args = append(args, accelArgs(cfg.Accel)...)
	args = append(args, wireArgs()...)
	for i, d := range cfg.Disks {
		args = append(args, diskArgs(d, fdDisks+i)...)
	}
	return args
}

// accelArgs chooses the CPU. Under emulation tb-size bounds the translation
// buffer: 64 MiB hold a booted guest's code, less thrashes, and what is in use
// counts as QEMU's memory.
func accelArgs(accel vmm.Accel) []string {
	if accel == vmm.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,tb-size=64", "-cpu", "max"}
}

func wireArgs() []string {
	return []string{
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fdMonitor),
		"-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole),
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", fdAgent),
		"-device", "virtio-serial-device,max_ports=2", // port 0 is for consoles
		"-device", "virtserialport,chardev=agent,name=" + vmm.AgentPort,
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", "virtio-rng-device,rng=rng",
	}
}

// diskArgs gives QEMU the disk behind descriptor fd. Flushes of the guest
// reach the file (writeback honours them), discards punch holes in it.
func diskArgs(d vmm.Disk, fd int) []string {
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd),
		"-blockdev", encode(object{
			"driver": "raw", "node-name": node(d.Serial), "read-only": d.ReadOnly, "discard": "unmap",
			"file": object{
				"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", fd),
				"read-only": d.ReadOnly, "discard": "unmap", "aio": "threads",
			},
		}),
		"-device", encode(object{"driver": "virtio-blk-device", "drive": node(d.Serial), "serial": d.Serial}),
	}
}

// node is the block layer's name for a disk.
func node(serial string) string { return "disk-" + serial }

func encode(o object) string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings, booleans and maps of them cannot fail
	}
	return string(text)
}

// kernelCmdline puts the driver's part before the caller's, which may override
// it.
func kernelCmdline(cfg vmm.Config, clock []string) string {
	words := []string{
		"console=ttyS0",
		"panic=-1",          // reset at once: -no-reboot makes it our news
		"quiet",             // a serial character is a trap into QEMU
		"cryptomgr.notests", // self-tests of algorithms nobody uses yet
		"8250.nr_uarts=1",   // do not probe for three that are not there
	}
	words = append(words, clock...)
	if cfg.Cmdline != "" {
		words = append(words, cfg.Cmdline)
	}
	return strings.Join(words, " ")
}
