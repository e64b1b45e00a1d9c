package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newImageRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rename <image> <name>",
		Short:             "Give an image another name",
		Example:           `  banger image rename app-v1 app`,
		Args:              exactly("image", "new name"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := banger.ValidateImageName(args[1]); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				image, err := c.RenameImage(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(a.Out, image.Name)
				return err
			})
		},
	}
}

func newImageRegister(a *app) *cobra.Command {
	var req api.RegisterImage
	cmd := &cobra.Command{
		Use:   "register",
		Short: "Make an image of an ext4 file of your own",
		Long: `Make an image of an ext4 file that stays where it is. It is mounted read-only and never written; when it
has changed, no VM starts from it any more. promote takes a copy of it. So it is with a work seed, a second
file whose tree is copied to /root when a VM of the image boots for the first time.`,
		Example: `  banger image register --name mine --rootfs ./rootfs.ext4 --kernel-ref debian-cloud
  banger image register --name mine --rootfs ./rootfs.ext4 --work-seed ./home.ext4`,
		Args:              exactly(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Name == "" || req.Rootfs == "" {
				return badUsage("--name and --rootfs are needed")
			}
			if err := banger.ValidateImageName(req.Name); err != nil {
				return err
			}
			if err := absoluteKernel(&req.ImageKernel); err != nil {
				return err
			}
			if err := makeAbsolute(&req.Rootfs, &req.WorkSeed); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addImage(func(p *progress) (api.Image, error) { return c.RegisterImage(ctx, req, p.watch) })
			})
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "call it `NAME`")
	cmd.Flags().StringVar(&req.Rootfs, "rootfs", "", "the ext4 `FILE`")
	cmd.Flags().StringVar(&req.WorkSeed, "work-seed", "", "another ext4 `FILE`, whose tree fills /root when a VM first boots")
	kernelFlags(cmd, a, &req.ImageKernel)
	return cmd
}

func newImagePromote(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "promote <image>",
		Short:             "Copy a registered image's file to where nobody changes it",
		Example:           `  banger image promote mine`,
		Args:              exactly("image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addImage(func(p *progress) (api.Image, error) { return c.PromoteImage(ctx, args[0], p.watch) })
			})
		},
	}
}

func newImageExport(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export <image>",
		Short: "Write an image to a file that another banger imports",
		Long: `Write an image to one file (a zstd-compressed tar of a manifest, the file system and the work seed, if there is one),
from which import makes the same image on any machine, without a network. The kernel is not in it.`,
		Example:           `  banger image export app -o app.tar.zst`,
		Args:              exactly("image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return a.export(ctx, c, args[0], out) })
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write `FILE` (default: NAME.tar.zst here)")
	return cmd
}

func (a *app) export(ctx context.Context, c *client.Client, ref, out string) error {
	image, err := c.Image(ctx, ref)
	if err != nil {
		return err
	}
	if out == "" {
		out = image.Name + ".tar.zst"
	}
	path, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	p := a.progress()
	defer p.end()
	if _, err := c.ExportImage(ctx, image.ID, api.ExportImage{Path: path}, p.watch); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o666&^umask()); err != nil { // a daemon's files are its own
		return err
	}
	p.end()
	_, err = fmt.Fprintln(a.Out, out)
	return err
}

func newImageImport(a *app) *cobra.Command {
	var req api.ImportImage
	cmd := &cobra.Command{
		Use:     "import <file>",
		Short:   "Make an image of a file that export wrote",
		Example: `  banger image import app.tar.zst --name app2`,
		Args:    exactly("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Path = args[0]
			if err := makeAbsolute(&req.Path); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addImage(func(p *progress) (api.Image, error) { return c.ImportImage(ctx, req, p.watch) })
			})
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "call it `NAME` (default: the name it was exported under)")
	return cmd
}

func newImageCommit(a *app) *cobra.Command {
	var req api.CommitImage
	cmd := &cobra.Command{
		Use:   "commit <vm> <name>",
		Short: "Make an image of a stopped VM",
		Long: `Make an image of what a stopped VM's files have become. The VM is booted for it and stopped again. What
belongs to this VM alone stays out, and is named: temporary files, the container engines' directories,
keys, machine-id, files that file_sync brought, and the workspace unless --with-workspace is given.`,
		Example:           `  banger image commit devbox my-tools`,
		Args:              exactly("VM", "name"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[1]
			if err := banger.ValidateImageName(req.Name); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addImage(func(p *progress) (api.Image, error) { return c.CommitImage(ctx, args[0], req, p.watch) })
			})
		},
	}
	cmd.Flags().BoolVar(&req.WithWorkspace, "with-workspace", false, "also the repository that was brought in")
	return cmd
}
