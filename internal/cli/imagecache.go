package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newImageCache(a *app) *cobra.Command {
	return newGroup(a, "cache", "What is kept to be fast and can be made again", newCachePrune(a))
}

func newCachePrune(a *app) *cobra.Command {
	var req api.PruneCache
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what can be made again and nothing uses",
		Long: `Remove the templates that no running VM is a fork of, and the layers of which no image is made, and
say how much disk space that frees. The next VM of the same shape boots, and leaves a new template.`,
		Example: `  banger image cache prune --dry-run`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				gone, err := c.PruneCache(ctx, req)
				if err != nil {
					return err
				}
				if asJSON {
					return a.json(gone)
				}
				return a.printPruned(gone, req.DryRun)
			})
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what would go")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printPruned(p api.Pruned, dry bool) error {
	verb := "freed"
	if dry {
		verb = "would free"
	}
	if len(p.Templates) > 0 {
		t := newTable("TEMPLATE", "IMAGE", "VCPU", "MEM", "SIZE", "USED")
		for _, tm := range p.Templates {
			t.row(banger.ShortID(tm.ID), banger.ShortID(tm.Image), fmt.Sprint(tm.VCPU),
				banger.FormatSize(tm.MemoryMiB*banger.MiB), banger.ApproxSize(tm.SizeBytes), age(tm.UsedAt, time.Now()))
		}
		a.print(t)
	}
	if p.Blobs > 0 {
		a.say("%d layers and configurations of images (%s)", p.Blobs, banger.ApproxSize(p.BlobBytes))
	}
	a.say("%s %s", verb, banger.ApproxSize(p.FreedBytes))
	return nil
}
