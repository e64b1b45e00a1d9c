package daemon

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"

	"banger"
	"banger/internal/api"
	"banger/internal/image"
)

// Images from files of the person's and to them.

func needAbsolute(paths ...string) error {
	for _, path := range paths {
		if path != "" && !filepath.IsAbs(path) {
			return banger.Errorf(banger.BadRequest, "bad path %q: it is not absolute", path)
		}
	}
	return nil
}

// add has make make an image of that name, which nothing else may have, and
// writes its row. One that make gives with an error is removed again: its directory
// would be an image to the next daemon.
func (i *images) add(ctx context.Context, name string, make func() (banger.Image, error)) (banger.Image, error) {
	done, err := i.names.take(ctx, name)
	if err != nil {
		return banger.Image{}, err
	}
	defer done()
	if _, err := i.store.ImageByName(ctx, name); err == nil {
		return banger.Image{}, banger.Errorf(banger.AlreadyExists, "there is an image %s already", name).
			Hint("banger image delete %s", name)
	}
	made, err := make()
	if err == nil {
		err = i.store.UpsertImage(ctx, made)
	}
	if err != nil && made.ID != "" { // what followed the making failed
		err = errors.Join(err, discard(i.dirs, i.dirs.Image(made.ID)))
	}
	if err != nil {
		return banger.Image{}, err
	}
	return i.store.Image(ctx, made.ID)
}

func (d *daemon) registerImage(_ context.Context, in *given[api.RegisterImage]) (job, error) {
	ask := in.Body
	if err := cmp.Or(banger.ValidateImageName(ask.Name), checkKernel(ask.ImageKernel), needAbsolute(ask.Rootfs, ask.WorkSeed, ask.Kernel, ask.Initrd, ask.Modules)); err != nil {
		return job{}, err
	}
	return job{ask.Name, func(ctx context.Context, op *operation) (any, error) {
		release := func() {}
		defer func() { release() }()
		row, err := d.images.add(ctx, ask.Name, func() (banger.Image, error) {
			k, err := d.kernelOf(ctx, ask.Name, ask.ImageKernel, op.Stage)
			if err != nil {
				return banger.Image{}, err
			}
			release = k.release
			img, err := d.images.builder.Register(ctx, image.Registration{
				Name: ask.Name, Rootfs: ask.Rootfs, Seed: ask.WorkSeed, Kernel: k.digest,
			}, op.Stage)
			if err != nil {
				k.undo()
			}
			img.KernelPath, img.InitrdPath, img.ModulesDir = k.files.kernel, k.files.initrd, k.files.modules
			return img, err
		})
		if err != nil {
			return nil, err
		}
		return d.describeImage(ctx, row)
	}}, nil
}

func (d *daemon) importImage(_ context.Context, in *given[api.ImportImage]) (job, error) {
	ask := in.Body
	if err := needAbsolute(ask.Path); err != nil {
		return job{}, err
	}
	if ask.Name != "" {
		if err := banger.ValidateImageName(ask.Name); err != nil {
			return job{}, err
		}
	}
	return job{cmp.Or(ask.Name, ask.Path), func(ctx context.Context, op *operation) (any, error) {
		name := ask.Name
		if name == "" {
			var err error
			if name, err = image.PackName(ask.Path); err != nil {
				return nil, err
			}
		}
		row, err := d.images.add(ctx, name, func() (banger.Image, error) {
			return d.images.builder.Import(ctx, ask.Path, name, op.Stage)
		})
		if err != nil {
			return nil, err
		}
		return d.describeImage(ctx, row)
	}}, nil
}

// existing is a job on an image that there is.
func (d *daemon) existing(ctx context.Context, ref string, w func(ctx context.Context, row banger.Image, op *operation) (banger.Image, error)) (job, error) {
	row, err := d.images.find(ctx, ref)
	return job{row.Name, func(ctx context.Context, op *operation) (any, error) {
		done, err := d.images.names.take(ctx, row.Name)
		if err != nil {
			return nil, err
		}
		defer done()
		row, err := d.images.store.Image(ctx, row.ID) // as it is now
		if err != nil {
			return nil, err
		}
		if row, err = w(ctx, row, op); err != nil {
			return nil, err
		}
		return d.describeImage(ctx, row)
	}}, err
}

func (d *daemon) exportImage(ctx context.Context, in *toRef[api.ExportImage]) (job, error) {
	path := or(in.Body).Path
	if err := needAbsolute(path); err != nil || path == "" {
		return job{}, cmp.Or(err, error(banger.Errorf(banger.BadRequest, "cannot export an image: no file is named")))
	}
	return d.existing(ctx, in.Ref, func(ctx context.Context, row banger.Image, op *operation) (banger.Image, error) {
		op.Stage("write the pack")
		return row, image.Export(ctx, d.images.recordDir(row), path)
	})
}

func (d *daemon) promoteImage(ctx context.Context, in *ofRef) (job, error) {
	return d.existing(ctx, in.Ref, func(ctx context.Context, row banger.Image, op *operation) (banger.Image, error) {
		if row.Managed {
			return row, banger.Errorf(banger.Conflict, "the image %s is a managed one already", row.Name)
		}
		op.Stage("copy the file system")
		promoted, err := d.images.builder.Promote(ctx, d.images.recordDir(row))
		if err != nil {
			return row, err
		}
		row = asPromoted(row, promoted)
		return row, d.images.store.UpsertImage(context.WithoutCancel(ctx), row) // the record says so already
	})
}

// recordDir is where the record of an image is kept: also that of a
// registered one, whose file is elsewhere.
func (i *images) recordDir(row banger.Image) string {
	if row.Managed {
		return row.ArtifactDir
	}
	return i.dirs.Image(row.ID)
}

func (d *daemon) renameImage(ctx context.Context, in *struct {
	Ref  string `path:"ref"`
	Body api.ChangeImage
}) (api.Image, error) {
	row, err := d.images.find(ctx, in.Ref)
	if err == nil {
		err = banger.ValidateImageName(in.Body.Name)
	}
	if err != nil {
		return api.Image{}, err
	}
	if row, err = d.images.rename(ctx, row, in.Body.Name); err != nil {
		return api.Image{}, err
	}
	return d.describeImage(ctx, row)
}

// rename gives an image another name. What is known of it may be out of date.
func (i *images) rename(ctx context.Context, row banger.Image, name string) (banger.Image, error) {
	if other, err := i.store.ImageByName(ctx, name); err == nil && other.ID != row.ID {
		return banger.Image{}, banger.Errorf(banger.AlreadyExists, "cannot rename the image %s: there is an image %s already", row.Name, other.Name)
	}
	for _, taken := range []string{row.Name, name} {
		done, other := i.names.try(taken, "")
		if done == nil {
			return banger.Image{}, banger.Errorf(banger.Busy, "cannot rename the image %s: %s is used by %s", row.Name, taken, other.holder())
		}
		defer done()
		if row.Name == name {
			break
		}
	}
	now, err := i.store.Image(ctx, row.ID)
	if err != nil {
		return banger.Image{}, err
	}
	if now.Name != row.Name {
		return banger.Image{}, banger.Errorf(banger.Conflict, "cannot rename the image %s: it has become %s meanwhile", row.Name, now.Name)
	}
	row = now
	// The record first: a pull of the old name finds images by it.
	if err := image.Rename(i.recordDir(row), name); err != nil && banger.CodeOf(err) != banger.NotFound {
		return banger.Image{}, err
	}
	row.Name = name
	if err := i.store.UpsertImage(ctx, row); err != nil {
		return banger.Image{}, err
	}
	return row, nil
}
