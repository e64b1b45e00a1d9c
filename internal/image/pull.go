package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/oci"
	"banger/internal/rootfs"
)

// PullRequest says what to get from a registry.
type PullRequest struct {
	Ref       oci.Ref
	Name      string // of the image
	Access    banger.Access
	BuildSize string
	Kernel    string // digest, or ""
	OwnUser   bool   // commands run as the user the image names, not as root
}

// Pull makes an image of one of a registry. Whatever the name stood for
// before, it gives the same image twice only if the reference is the same one.
func (b Builder) Pull(ctx context.Context, req PullRequest, progress func(stage string)) (banger.Image, error) {
	if err := banger.ValidateImageName(req.Name); err != nil {
		return banger.Image{}, err
	}
	same := func(r Record) bool { return r.Ref == req.Ref.String() && r.Kernel == req.Kernel }
	img, err := b.once(ctx, req.Name, same, func(dir string, _ *os.File) (Record, error) {
		return b.pull(ctx, req, dir, progress)
	})
	return img, banger.Wrap(cancelled(ctx, err), "cannot pull the image %s", req.Ref)
}

func (b Builder) pull(ctx context.Context, req PullRequest, dir string, progress func(string)) (Record, error) {
	progress("ask " + req.Ref.Context().RegistryStr() + " for " + req.Ref.String())
	found, err := oci.Find(ctx, req.Ref, req.Access, b.Cache)
	if err != nil {
		return Record{}, err
	}
	if err := checkSent(found); err != nil {
		return Record{}, err
	}
	err = b.join(ctx, found, dir, progress)
	if banger.CodeOf(err) == banger.Conflict {
		err = b.join(ctx, found, dir, progress) // the cache has lost what was damaged
	}
	if err != nil {
		return Record{}, fileError(err)
	}
	progress("compute the digest")
	return describe(found, req), nil
}

// checkSent refuses an image that is sent in more bytes than it may come to, before any of
// it is fetched: what is unpacked is counted only as the layers come, the lowest first.
func checkSent(found *oci.Image) error {
	if sent, most := found.Size(), rootfs.Default.Bytes; sent > most {
		return banger.Errorf(banger.BadRequest, "its layers have %s, of at most %s", banger.FormatSize(sent), banger.FormatSize(most))
	}
	return nil
}

// join writes the file system that the layers make.
func (b Builder) join(ctx context.Context, found *oci.Image, dir string, progress func(string)) error {
	tree := rootfs.New(dir, rootfs.Default)
	defer tree.Close()
	if err := b.unpack(ctx, found, tree, progress); err != nil {
		return err
	}
	progress("write the file system")
	return writeTree(ctx, tree, filepath.Join(dir, rootfsFile))
}

// RefOf gives the reference an image of that name was made of, so that it can
// be got again by its name; name itself where there is none, or where the image is the
// catalogue's, wherever that came from.
func (b Builder) RefOf(name string) string {
	ref := name
	b.find(name, func(r Record) bool {
		found := r.Ref != "" && !r.Catalogue
		if found {
			ref = r.Ref
		}
		return found
	})
	return ref
}

// How many layers are fetched at a time, and how many decompressed: the next
// ones are on their way while one is read. Each of those that are decompressed may
// take 34 MiB of memory, the window of a zstd layer.
const (
	fetched  = 3
	unpacked = 2
)

// unpack replays layers as they come.
func (b Builder) unpack(ctx context.Context, found *oci.Image, tree *rootfs.Tree, progress func(string)) error {
	here := make([]chan struct{}, len(found.Layers))
	for i := range here {
		here[i] = make(chan struct{})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.fetchAll(ctx, found, here) })
	group.Go(func() error { return b.unpackAll(ctx, found, here, tree, progress) })
	return group.Wait()
}

// fetchAll closes here for each layer that is in the cache.
func (b Builder) fetchAll(ctx context.Context, found *oci.Image, here []chan struct{}) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetched)
	for i, l := range found.Layers {
		group.Go(func() error {
			if err := found.Fetch(ctx, b.Cache, l); err != nil {
				return err
			}
			close(here[i])
			return nil
		})
	}
	return group.Wait()
}

// unpackAll replays the layers that are here.
func (b Builder) unpackAll(ctx context.Context, found *oci.Image, here []chan struct{}, tree *rootfs.Tree, progress func(string)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(unpacked + 1)
	group.Go(func() error {
		for i, l := range found.Layers {
			layer := fmt.Sprintf("layer %d of %d, %s", i+1, len(found.Layers), l)
			if err := arrival(ctx, here[i], func() { progress("fetch " + layer) }); err != nil {
				return err
			}
			progress("unpack " + layer)
			place, err := tree.Place()
			if err != nil {
				return err
			}
			group.Go(func() error {
				return found.Unpack(ctx, b.Cache, l, func(r io.Reader) error { return place.Add(ctx, r) })
			})
		}
		return nil
	})
	return group.Wait()
}

// arrival waits for what is to come, and says so where that is not at once.
func arrival(ctx context.Context, here <-chan struct{}, waiting func()) error {
	select {
	case <-here:
		return nil
	default:
	}
	waiting()
	select {
	case <-here:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func describe(found *oci.Image, req PullRequest) Record {
	r := Record{
		Source: req.Ref.String(), Ref: req.Ref.String(), Manifest: found.Digest,
		Env: found.Config.Env, WorkDir: found.Config.WorkingDir,
		Entrypoint: found.Config.Entrypoint, Cmd: found.Config.Cmd,
		BuildSize: req.BuildSize, Kernel: req.Kernel, OwnUser: req.OwnUser,
	}
	if req.OwnUser {
		r.User = found.Config.User
	}
	for _, l := range found.Layers {
		r.Layers = append(r.Layers, l.Digest.String())
	}
	return r
}
