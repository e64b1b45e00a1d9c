package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newImage(a *app) *cobra.Command {
	return newGroup(a, "image", "The root file systems VMs boot from",
		newImageList(a), newImageShow(a), newImagePull(a), newImageDelete(a), newImageRename(a), newImageRegister(a), newImagePromote(a),
		newImageExport(a), newImageImport(a), newImageCommit(a), newImageCache(a))
}

func newImageList(a *app) *cobra.Command {
	var out listFlags
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Example: `  banger image list`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				images, err := c.Images(ctx)
				if err != nil {
					return err
				}
				return a.printImages(images, out)
			})
		},
	}
	out.register(cmd, "ids")
	return cmd
}

func (a *app) printImages(images []api.Image, out listFlags) error {
	if out.json {
		return a.json(images)
	}
	t := newTable("ID", "NAME", "SIZE", "SOURCE", "USED BY", "CREATED")
	for _, i := range images {
		if out.quiet {
			fmt.Fprintln(a.Out, i.ID)
			continue
		}
		t.row(banger.ShortID(i.ID), i.Name, banger.ApproxSize(i.SizeBytes), i.Source, used(i.UsedBy), age(i.CreatedAt, time.Now()))
	}
	if !out.quiet {
		a.print(t)
	}
	return nil
}

// used sums up who uses something.
func used(by []string) string {
	if len(by) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(by[:2], ", "), len(by)-2)
	}
	return strings.Join(by, ", ")
}

func newImageShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show <image>",
		Short:             "Show an image, as JSON",
		Example:           `  banger image show debian-bookworm`,
		Args:              exactly("image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				image, err := c.Image(ctx, args[0])
				if err != nil {
					return err
				}
				return a.json(image)
			})
		},
	}
	cmd.Flags().Bool("json", true, "print JSON; it is the only form")
	return cmd
}

func newImageDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "delete <image>...",
		Aliases:           []string{"rm"},
		Short:             "Delete images that no VM uses",
		Example:           `  banger image delete debian-bookworm`,
		Args:              atLeastOne("image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.eachName(ctx, args, c.DeleteImage)
			})
		},
	}
}
