package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/vnet/reach"
)

// shapeFlags say what a new VM is like.
type shapeFlags struct {
	name     string
	image    string
	vcpu     int
	memory   string
	diskSize string
	nat      bool
	allow    []string
	publish  []string
	cold     bool
	init     string
}

func (f *shapeFlags) register(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "call the VM `NAME` (default: a generated one)")
	flags.StringVar(&f.image, "image", "", "boot `IMAGE` (default: default_image_name of the configuration); pulled when missing")
	flags.IntVar(&f.vcpu, "vcpu", 0, "number `N` of virtual CPUs")
	flags.StringVar(&f.memory, "memory", "", "`SIZE` of its memory, as in 2G; without a suffix MiB")
	flags.StringVar(&f.diskSize, "disk-size", "", "`SIZE` of its disk, as in 8G; without a suffix MiB")
	flags.BoolVar(&f.nat, "nat", false, "let it reach the internet")
	flags.StringArrayVar(&f.allow, "allow", nil, "let it reach `HOST[:PORT]`")
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, "publish a port of the guest on 127.0.0.1, as `HOST:GUEST`; another loopback address comes first")
	flags.BoolVar(&f.cold, "cold", false, "boot without a template")
	flags.StringVar(&f.init, "init", banger.InitAgent, "run `INIT` as the first process: agent or systemd")
	registerOverlaySize(cmd)
	a.completeFlag(cmd, "init", banger.InitAgent, banger.InitSystemd)
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeImages)
}

// overlaySize is a flag of the reference that has no meaning here: a VM has one disk.
const overlaySize = "system-overlay-size"

func registerOverlaySize(cmd *cobra.Command) {
	cmd.Flags().String(overlaySize, "", "ignored")
	_ = cmd.Flags().MarkHidden(overlaySize)
}

// ignoreOverlaySize says so where it was given.
func (a *app) ignoreOverlaySize(cmd *cobra.Command) {
	if cmd.Flags().Changed(overlaySize) {
		a.warn("--%s has no meaning here and is ignored: a VM has one disk, of --disk-size", overlaySize)
	}
}

// request checks the flags; cmd says which were given.
func (f *shapeFlags) request(a *app, cmd *cobra.Command) (api.CreateVM, error) {
	a.ignoreOverlaySize(cmd)
	req := api.CreateVM{
		Name: f.name, Image: f.image, VCPU: f.vcpu, Allow: f.allow, Publish: f.publish, Cold: f.cold, Init: f.init,
		Access: access(),
	}
	if f.init != banger.InitAgent && f.init != banger.InitSystemd {
		return req, badUsage("bad --init %q: it must be agent or systemd", f.init)
	}
	if cmd.Flags().Changed("name") {
		if err := banger.ValidateVMName(f.name); err != nil {
			return req, err
		}
	}
	if cmd.Flags().Changed("vcpu") && f.vcpu < 1 {
		return req, badUsage("bad number of virtual CPUs %d: it must be at least 1", f.vcpu)
	}
	if cmd.Flags().Changed("nat") {
		req.NAT = &f.nat
	}
	if _, err := reach.ParsePolicy(false, f.allow); err != nil {
		return req, err
	}
	if _, err := banger.ParsePublishes(f.publish); err != nil {
		return req, err
	}
	var err error
	if req.MemoryMiB, err = memoryMiB(f.memory); err != nil {
		return req, err
	}
	if req.DiskBytes, err = diskBytes(f.diskSize); err != nil {
		return req, err
	}
	return req, nil
}

func memoryMiB(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bytes, err := banger.ParseSize(s)
	if err != nil {
		return 0, banger.Wrap(err, "bad --memory")
	}
	return bytes / banger.MiB, banger.ValidateMemory(bytes/banger.MiB, hostMemoryMiB())
}

func diskBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bytes, err := banger.ParseSize(s)
	if err != nil {
		return 0, banger.Wrap(err, "bad --disk-size")
	}
	return bytes, banger.ValidateDiskSize(bytes)
}

// specLine sums a VM up: "spec: 2 vcpu | 2048 MiB | 8G disk | network: none".
func specLine(vm api.VM) string {
	line := fmt.Sprintf("spec: %d vcpu | %d MiB | %s disk | network: %s",
		vm.Spec.VCPU, vm.Spec.MemoryMiB, banger.FormatSize(vm.Spec.DiskBytes), vm.Spec.NetworkWords())
	if len(vm.Spec.Publish) > 0 {
		line += " | publish: " + strings.Join(vm.Spec.Publish, ", ")
	}
	return line
}
