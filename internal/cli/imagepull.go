package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/kernel"
)

func newImagePull(a *app) *cobra.Command {
	var req api.PullImage
	var user string
	cmd := &cobra.Command{
		Use:   "pull <image>",
		Short: "Get an image of the catalogue or of a registry",
		Long: `Get an image, so that VMs can boot from it. debian-bookworm, the catalogue's, is built from the
host's own package sources. Anything else is a reference to a container image, as docker has them:
alpine:3.20, registry.example/org/app@sha256:…, localhost:5000/mine. It is got for linux/amd64, with docker's
credentials, without TLS only from this machine. Layers are kept, and a pull that was interrupted is
gone on with. The image's ENV and WORKDIR apply to commands in its VMs; its ENTRYPOINT and CMD are
shown and never run by themselves. What is there is kept, unless --force is given.`,
		Example: `  banger image pull debian-bookworm
  banger image pull alpine:3.20
  banger image pull registry.example/org/app:1 --name app --user image --size 16G`,
		Args:              exactly("image"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Ref, req.OwnUser = args[0], user == "image"
			if user != "root" && user != "image" {
				return badUsage("bad --user %q: it must be root or image", user)
			}
			if err := absoluteKernel(&req.ImageKernel); err != nil {
				return err
			}
			req.Access = access()
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addImage(func(p *progress) (api.Image, error) { return c.PullImage(ctx, req, p.watch) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Name, "name", "", "call it `NAME` (default: the last part of the reference and its tag)")
	flags.StringVar(&req.Size, "size", "", "least `SIZE` of its VMs' disks, as in 16G")
	flags.StringVar(&user, "user", "root", "who runs commands in its VMs: root, or `image` for the one the image names")
	a.completeFlag(cmd, "user", "root", "image")
	flags.BoolVar(&req.Force, "force", false, "get it again")
	kernelFlags(cmd, a, &req.ImageKernel)
	return cmd
}

// addImage shows the making of an image and says what came of it.
func (a *app) addImage(add func(*progress) (api.Image, error)) error {
	p := a.progress()
	defer p.end()
	image, err := add(p)
	if err != nil {
		return err
	}
	a.say("%s is ready after %s (%s)", image.Name, elapsed(p.end()), banger.ApproxSize(image.SizeBytes))
	if command := append(image.Entrypoint, image.Cmd...); len(command) > 0 {
		a.say("its own command is not run by itself: banger run --image %s -- %s", image.Name, quoteWords(command))
	}
	_, err = fmt.Fprintln(a.Out, image.Name)
	return err
}

// kernelFlags say what an image's VMs boot.
func kernelFlags(cmd *cobra.Command, a *app, k *api.ImageKernel) {
	flags := cmd.Flags()
	flags.StringVar(&k.KernelRef, "kernel-ref", "", "boot its VMs with the kernel `NAME` (default: default_kernel of the configuration)")
	flags.StringVar(&k.Kernel, "kernel", "", "boot its VMs with the kernel `FILE`, a bzImage or an ELF vmlinux")
	flags.StringVar(&k.Initrd, "initrd", "", "record the initial ramdisk `FILE`; banger's own is booted")
	flags.StringVar(&k.Modules, "modules", "", "`DIR` of that kernel's modules, as in /lib/modules/RELEASE")
	_ = cmd.RegisterFlagCompletionFunc("kernel-ref", a.completeKernels)
}

// absoluteKernel refuses flags that make no sense together, and makes paths
// absolute: the daemon has a working directory of its own.
func absoluteKernel(k *api.ImageKernel) error {
	switch {
	case k.KernelRef != "" && (k.Kernel != "" || k.Initrd != "" || k.Modules != ""):
		return badUsage("--kernel-ref stands for --kernel, --initrd and --modules")
	case (k.Kernel == "") != (k.Modules == ""):
		return badUsage("--kernel and --modules belong together").Hint(kernel.BuiltIn)
	case k.Initrd != "" && k.Kernel == "":
		return badUsage("--initrd belongs to a --kernel")
	}
	return makeAbsolute(&k.Kernel, &k.Initrd, &k.Modules)
}
