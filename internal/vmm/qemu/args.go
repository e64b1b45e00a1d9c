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

// arguments is QEMU's command line for a machine that boots. clock is the part
// of the kernel's that depends on the host.
func arguments(cfg vmm.Config, clock []string) []string {
	args := append(machineArgs(cfg),
		"-object", encode(object{"qom-type": "memory-backend-ram", "id": ramID, "size": cfg.MemoryMiB << 20}),
		"-kernel", cfg.Kernel,
		"-append", kernelCmdline(cfg, clock),
	)
	if cfg.Initrd != "" {
		args = append(args, "-initrd", cfg.Initrd)
	}
	args = append(args, diskArgs(cfg.Disks, fdDisks, "auto")...)
	return append(args, nicArgs(cfg.NIC)...)
}

// restoreArguments is QEMU's command line for a machine whose memory is what
// lies behind fdMemory and which waits for its devices' state.
//
// The guest's writes go to private pages, never to the file. QEMU 7.2 opens it
// for writing all the same: what keeps a file safe that others use is its seal.
func restoreArguments(cfg vmm.Config) []string {
	args := append(machineArgs(cfg),
		"-object", encode(object{
			"qom-type": "memory-backend-file", "id": ramID, "size": cfg.MemoryMiB << 20,
			"mem-path": fmt.Sprintf("/proc/self/fd/%d", fdMemory), "share": false,
		}),
		"-incoming", "defer",
	)
	args = append(args, diskArgs(cfg.Disks, fdRestoredDisks, "off")...)
	return append(args, nicArgs(cfg.NIC)...)
}

// ramID names the machine's memory.
const ramID = "ram"

// machineBuild is raised when a machine of the same description gets other
// devices, or the same in another order or place: what was saved before cannot be
// taken up by it, which QEMU does not always notice.
const machineBuild = 1

// machineArgs is what a machine has in common with those restored from it. The
// stream of a saved state holds no description of itself and of its machine:
// xen-save-devices-state, which writes it, knows of neither. The real-time clock
// is asked for since under KVM there would be none, and a kernel looks for it
// with 10,000 reads in a second (measured in a nested guest: 13 s).
func machineArgs(cfg vmm.Config) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", // a reset ends QEMU: the shim decides what follows
		"-S",         // until the monitor listens
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "microvm,acpi=on,pcie=off,usb=off,graphics=off,rtc=on,dump-guest-core=off,suppress-vmdesc=on,memory-backend=" + ramID,
		"-smp", strconv.Itoa(cfg.VCPU),
		"-m", strconv.FormatInt(cfg.MemoryMiB, 10),
		"-global", "virtio-mmio.force-legacy=off",
		"-global", "migration.send-configuration=off",
		"-global", "migration.announce-rounds=0",
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", fdDevices, fdDevices),
	}
	args = append(args, accelArgs(cfg.Accel)...)
	return append(args, wireArgs()...)
}

// accelArgs chooses the CPU. Under emulation tb-size bounds the translation
// buffer: 64 MiB hold a booted guest's code, less thrashes, and what is in use
// counts as QEMU's memory. Without the promise of fast string instructions the
// guest copies in larger steps than `rep movsb`, which is emulated byte by byte:
// a command's output costs half the CPU time per MB. A smaller model than "max"
// gains nothing (measured: one without AVX, PKU, SMAP, one of level x86-64-v2),
// and neither do mitigations=off and the like. One without ARAT takes a sixth less
// time to come back, but its kernel has no timer finer than 4 ms and ticks for
// ever: twice the CPU time of an idle guest.
func accelArgs(accel vmm.Accel) []string {
	if accel == vmm.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,tb-size=64", "-cpu", "max,-erms,-fsrm"}
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

// nicArgs adds the network card, after the disks: a machine without one has all
// else in its place. The card has no control queue, which is for what a guest
// that is alone on its cable needs not, and a good part of a card's code. It does
// not announce itself after a restore: nobody there has to learn anything, and it
// would cost the guest an interrupt and the code behind it.
func nicArgs(nic *vmm.NIC) []string {
	if nic == nil {
		return nil
	}
	return []string{
		"-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", fdCable),
		"-device", encode(object{
			"driver": "virtio-net-device", "netdev": "net", "mac": nic.MAC, "host_mtu": nic.MTU,
			"guest_announce": false, "mq": false, "ctrl_vq": false, "ctrl_rx": false, "ctrl_vlan": false,
			"ctrl_rx_extra": false, "ctrl_mac_addr": false, "ctrl_guest_offloads": false,
		}),
	}
}

// withOwnNetwork puts QEMU's own network at the other end of the cable.
func withOwnNetwork(args []string) []string {
	for i, a := range args {
		if a == "-netdev" {
			args[i+1] = "user,id=net"
		}
	}
	return args
}

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
		"reboot=t",          // by triple fault: ACPI's way does nothing in a machine that was restored
		"quiet",             // a serial character is a trap into QEMU
		"cryptomgr.notests", // self-tests of algorithms nobody uses yet
		"8250.nr_uarts=1",   // do not probe for three that are not there
	}
	words = append(words, clock...)
	if cfg.Accel == vmm.TCG {
		// What the kernel does not know is init's environment. Under emulation
		// everything takes longer than the 10 ms after which Go interrupts with
		// a signal what runs: a twentieth of a warm start.
		//
		// QEMU translates a program again wherever it is loaded. With its
		// libraries at the same place each time a command starts in a third of
		// the time; who wants them elsewhere sets kernel.randomize_va_space.
		words = append(words, "GODEBUG=asyncpreemptoff=1", "norandmaps")
	}
	if cfg.Cmdline != "" {
		words = append(words, cfg.Cmdline)
	}
	return strings.Join(words, " ")
}
