package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"banger"
	"banger/internal/config"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
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
	missing := err != nil && banger.CodeOf(err) == banger.NotFound && e.config.QEMUBin == ""
	switch {
	case missing && e.doesWithoutQEMU():
		e.add("qemu", Warn, err.Error()+"; Firecracker does without, and nobody has tried KVM", e.host.install("qemu-system-x86_64"))
		return
	case missing:
		e.add("qemu", Fail, err.Error(), e.host.install("qemu-system-x86_64"))
		return
	case err != nil:
		e.add("qemu", Fail, err.Error(), banger.HintsOf(err)...)
		return
	}
	e.qemu = bin
	e.pass("qemu", "version %s at %s", version, bin)
}

// doesWithoutQEMU says that VMs run on a Firecracker, as the daemon chooses.
func (e *exam) doesWithoutQEMU() bool {
	if e.config.VMM == "qemu" || e.config.Accel == string(vmm.TCG) {
		return false
	}
	_, err := firecracker.Find(e.config.FirecrackerBin)
	kvm, known := qemu.Probe{}.Known()
	return err == nil && (!known || kvm.State == qemu.Usable) && firecracker.CanMakeCards(e.Self) == nil
}

// confinement says what of a VMM's bonds this host does not allow.
func (e *exam) confinement(context.Context) {
	missing := e.host.withheld()
	if len(missing) == 0 {
		e.pass("confinement", "VMMs have namespaces, a system call filter and Landlock")
		return
	}
	var remedies []string
	if slices.Contains(missing, "user namespace") {
		remedies = append(remedies, "sysctl user.max_user_namespaces kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns")
	}
	if slices.Contains(missing, "Landlock") {
		remedies = append(remedies, "cat /sys/kernel/security/lsm")
	}
	e.add("confinement", Warn, "this host does not let you hold VMMs back by: "+strings.Join(missing, ", "), remedies...)
}

// firecracker looks at a Firecracker that is there, or asked for.
func (e *exam) firecracker(context.Context) {
	asked := e.config.VMM == "firecracker"
	use := `set vmm = "qemu" in ` + e.dirs.ConfigFile()
	found, err := firecracker.Find(e.config.FirecrackerBin)
	switch {
	case err != nil && banger.CodeOf(err) == banger.NotFound && e.config.FirecrackerBin == "" && !asked:
		return
	case err != nil && (asked || banger.CodeOf(err) == banger.NotFound):
		e.add("firecracker", Fail, err.Error(), append(banger.HintsOf(err), use)...)
		return
	case err != nil:
		e.add("firecracker", Warn, err.Error()+"; QEMU is used", banger.HintsOf(err)...)
		return
	}
	unused := e.config.VMM == "qemu"
	if err := firecracker.CanMakeCards(e.Self); err != nil && !unused {
		verdict := Warn
		if asked {
			verdict = Fail
		}
		e.add("firecracker", verdict, err.Error(), append(banger.HintsOf(err), use)...)
		return
	}
	switch {
	case found.Warning != "" && !unused:
		e.add("firecracker", Warn, found.Warning, use)
	case unused:
		e.pass("firecracker", "version %s at %s, not used: the configuration says vmm = %q", found.Version, found.Path, e.config.VMM)
	default:
		e.pass("firecracker", "version %s at %s, used where KVM is usable", found.Version, found.Path)
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
