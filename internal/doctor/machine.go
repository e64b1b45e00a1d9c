package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

func (e *exam) architecture(context.Context) {
	if e.host.arch != "amd64" {
		e.add("architecture", Fail, e.host.arch+": banger runs on amd64 only")
		return
	}
	e.pass("architecture", "%s", e.host.arch)
}

// configuration reads the file; the checks after it go on with the defaults
// where it is wrong.
func (e *exam) configuration(context.Context) {
	file := e.dirs.ConfigFile()
	c, warnings, err := config.Load(file)
	if err != nil {
		e.add("configuration", Fail, err.Error(), banger.HintsOf(err)...)
		c, _, _ = config.Load("/dev/null")
	}
	e.config = c
	for _, w := range warnings {
		e.add("configuration", Warn, string(w), "edit "+file)
	}
	if err == nil && len(warnings) == 0 {
		e.pass("configuration", "%s", file)
	}
}

func (e *exam) vmm(context.Context) {
	bin, version, err := qemu.Find(e.config.QEMUBin)
	if err != nil && banger.CodeOf(err) == banger.NotFound && e.config.QEMUBin == "" {
		e.add("qemu", Fail, err.Error(), e.host.install("qemu-system-x86_64"))
		return
	}
	if err != nil {
		e.add("qemu", Fail, err.Error(), banger.HintsOf(err)...)
		return
	}
	e.qemu = bin
	e.pass("qemu", "version %s at %s", version, bin)
}

var firecrackerVersion = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`Firecracker v(\d+(?:\.\d+)+)`)
})

// firecracker looks at a Firecracker that is there, or asked for.
func (e *exam) firecracker(ctx context.Context) {
	path, err := exec.LookPath(cmp.Or(e.config.FirecrackerBin, "firecracker"))
	if err != nil && (e.config.FirecrackerBin != "" || e.config.VMM == "firecracker") {
		e.add("firecracker", Fail, "it is configured and cannot be found: "+err.Error(), `set vmm = "qemu" in `+e.dirs.ConfigFile())
		return
	} else if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	said, _ := exec.CommandContext(ctx, path, "--version").Output()
	version := firecrackerVersion().FindSubmatch(said)
	switch {
	case e.config.VMM == "firecracker":
		e.add("firecracker", Fail, "this banger has no driver for it yet", `set vmm = "qemu" in `+e.dirs.ConfigFile())
	case version == nil:
		e.add("firecracker", Warn, path+" does not say its version")
	case string(version[1]) == "1.16.0":
		e.add("firecracker", Warn, "version 1.16.0 loses its connections to guests that are restored, and is refused", "install version 1.16.1")
	default:
		e.pass("firecracker", "version %s at %s, not used: this banger has no driver for it yet", version[1], path)
	}
}

// acceleration says whether KVM works, and what emulation means.
func (e *exam) acceleration(ctx context.Context) {
	accel := vmm.Accel(e.config.Accel)
	if accel != vmm.TCG {
		if e.kvm(ctx) {
			return
		}
	} else {
		e.pass("kvm", "not used: the configuration says accel = %q", accel)
	}
	if accel == vmm.KVM {
		e.add("acceleration", Fail, "the configuration asks for KVM, which does not work here",
			`set accel = "auto" in `+e.dirs.ConfigFile())
		return
	}
	e.add("emulation", Warn, "VMs are emulated: some times slower, and not an isolation boundary: do not run hostile code in them")
}

// kvm says whether KVM works. It keeps no verdict.
func (e *exam) kvm(ctx context.Context) bool {
	v, known := qemu.Probe{Binary: e.qemu, Kernel: e.kernel, Cache: e.dirs.AccelVerdict()}.Known()
	if !known {
		if e.qemu == "" || e.kernel == "" {
			e.add("kvm", Warn, "present, not yet tried: that takes QEMU and a kernel", "banger kernel pull "+banger.DefaultKernel)
			return false
		}
		var err error
		if v, err = qemu.ProbeKVM(ctx, qemu.Probe{Binary: e.qemu, Kernel: e.kernel}); err != nil {
			e.add("kvm", Warn, "present, not tried: "+err.Error())
			return false
		}
	}
	switch v.State {
	case qemu.Usable:
		e.pass("kvm", "usable")
		return true
	case qemu.NoPermission:
		e.add("kvm", Warn, "present without permission: "+v.Why, fmt.Sprintf("sudo usermod -aG kvm %s, and log in again", e.host.user()))
	case qemu.Unusable:
		e.add("kvm", Warn, "present but unusable: "+v.Why)
	default:
		e.add("kvm", Warn, "absent: "+v.Why)
	}
	return false
}
