package daemon

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"banger"
	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/oci"
)

// pull is an image to get.
type pull struct {
	ref   string // of the catalogue, else of a registry
	force bool   // in place of what is there
	kernelFiles
	image.PullRequest
}

// kernelFiles are a person's files of a kernel, recorded as they were given.
type kernelFiles struct{ kernel, initrd, modules string }

// complete settles what the image is called and where it comes from.
func (p *pull) complete() (err error) {
	if inCatalogue(p.ref) {
		p.Name = cmp.Or(p.Name, p.ref)
		if p.Name != p.ref || p.BuildSize != "" || p.Kernel != "" || p.OwnUser {
			return banger.Errorf(banger.BadRequest, "cannot pull the image %s otherwise than as it is: it is of the catalogue", p.ref).
				Hint("banger image pull %s", p.ref)
		}
		return nil
	}
	if p.Ref != (oci.Ref{}) {
		return nil
	}
	if p.Ref, err = oci.Parse(p.ref); err != nil {
		return err
	}
	if p.Name == "" && inCatalogue(p.Ref.ImageName()) { // which VMs boot where nothing else is asked for
		return banger.Errorf(banger.BadRequest, "cannot pull the image %s as %s: that is the name of the catalogue's own", p.ref, p.Ref.ImageName()).
			Hint("banger image pull %s --name OTHER", p.ref)
	}
	p.Name = cmp.Or(p.Name, p.Ref.ImageName())
	return banger.ValidateImageName(p.Name)
}

// pull gets an image and writes its row. Of several at once for one name one
// does the work, and the others wait for it and find it done.
func (i *images) pull(ctx context.Context, p pull, stage func(string)) (banger.Image, error) {
	if err := p.complete(); err != nil {
		return banger.Image{}, err
	}
	done, err := i.names.take(ctx, p.Name)
	if err != nil {
		return banger.Image{}, err
	}
	defer done()
	old, err := i.store.ImageByName(ctx, p.Name)
	switch {
	case err == nil && !p.force:
		return old, i.checkSame(p, old)
	case err == nil:
		row, err := i.replace(ctx, p, old, stage)
		return row, banger.Wrap(err, "cannot pull the image %s again", p.Name)
	case banger.CodeOf(err) != banger.NotFound:
		return banger.Image{}, err
	}
	built, err := i.make(ctx, p, i.builder, stage)
	if err != nil {
		return banger.Image{}, err
	}
	if err := i.store.UpsertImage(ctx, built); err != nil {
		return banger.Image{}, err
	}
	return i.store.Image(ctx, built.ID)
}

// replace gets an image anew. The old one stays until the new one is there.
func (i *images) replace(ctx context.Context, p pull, old banger.Image, stage func(string)) (banger.Image, error) {
	if err := i.unused(ctx, old); err != nil {
		return banger.Image{}, err
	}
	built, err := i.make(ctx, p, i.builder.Anew(), stage)
	if err != nil {
		return banger.Image{}, err
	}
	if err := i.store.ReplaceImage(ctx, old.ID, built); err != nil {
		return banger.Image{}, errors.Join(err, discard(i.dirs, i.dirs.Image(built.ID)))
	}
	if err := discard(i.dirs, i.dirs.Image(old.ID)); err != nil { // never a person's own files
		return banger.Image{}, err
	}
	return i.store.Image(ctx, built.ID)
}

// checkSame refuses a name that stands for something else already, or for the same
// made otherwise than it is asked for now.
func (i *images) checkSame(p pull, there banger.Image) error {
	if inCatalogue(p.ref) {
		return nil
	}
	_, record, err := image.Load(there.ArtifactDir)
	if there.Managed && err == nil && record.Ref == p.Ref.String() {
		return p.checkRecord(record)
	}
	return banger.Errorf(banger.AlreadyExists, "cannot pull the image %s as %s: there is another image of that name (%s)", p.ref, p.Name, cmp.Or(record.Source, there.RootfsPath)).
		Hint("banger image pull %s --name OTHER", p.ref)
}

// checkRecord refuses an image of the reference that was made otherwise.
func (p pull) checkRecord(r image.Record) error {
	var other []string
	if p.BuildSize != "" && p.BuildSize != r.BuildSize {
		other = append(other, "size")
	}
	if p.OwnUser && !r.OwnUser && r.User == "" { // the mark is missing in older records
		other = append(other, "user")
	}
	if p.Kernel != "" && p.Kernel != r.Kernel {
		other = append(other, "kernel")
	}
	if len(other) == 0 {
		return nil
	}
	return banger.Errorf(banger.AlreadyExists, "cannot pull the image %s as %s: it is there with another %s", p.ref, p.Name, strings.Join(other, " and ")).
		Hint("banger image pull %s --force FLAGS", p.ref).
		Hint("banger image pull %s --name OTHER FLAGS", p.ref)
}

func (i *images) make(ctx context.Context, p pull, b image.Builder, stage func(string)) (built banger.Image, err error) {
	if inCatalogue(p.ref) {
		built, err = b.Build(ctx, p.ref, p.Access, stage)
	} else {
		built, err = b.Pull(ctx, p.PullRequest, stage)
	}
	built.KernelPath, built.InitrdPath, built.ModulesDir = p.kernel, p.initrd, p.modules
	return built, err
}

func (d *daemon) pullImage(_ context.Context, in *given[api.PullImage]) (job, error) {
	ask := in.Body
	p := pull{ref: d.images.builder.RefOf(ask.Ref), force: ask.Force, PullRequest: image.PullRequest{Name: ask.Name, Access: ask.Access, OwnUser: ask.OwnUser}}
	if p.ref != ask.Ref {
		p.Name = cmp.Or(ask.Name, ask.Ref)
	}
	var err error
	if p.BuildSize, err = buildSize(ask.Size); err != nil {
		return job{}, err
	}
	if err := cmp.Or(checkKernel(ask.ImageKernel), p.complete()); err != nil {
		return job{}, err
	}
	return job{ask.Ref, func(ctx context.Context, op *operation) (any, error) {
		k, err := d.kernelOf(ctx, p.Name, ask.ImageKernel, op.Stage)
		if err != nil {
			return nil, err
		}
		defer k.release()
		p.Kernel, p.kernelFiles = k.digest, k.files
		row, err := d.images.pull(ctx, p, op.Stage)
		if err != nil {
			k.undo()
			return nil, err
		}
		return d.describeImage(ctx, row)
	}}, nil
}

// buildSize is a size in the form it is recorded in.
func buildSize(size string) (string, error) {
	if size == "" {
		return "", nil
	}
	bytes, err := banger.ParseSize(size)
	if err == nil {
		err = banger.ValidateDiskSize(bytes)
	}
	if err != nil {
		return "", err
	}
	return banger.FormatSize(bytes), nil
}

// chosenKernel is the kernel that an image is to be booted with.
type chosenKernel struct {
	digest  string // "" for none of its own
	files   kernelFiles
	undo    func() // removes what was taken in for it; where it is used all the same it stays
	release func() // lets others delete it; the row is to be written before
}

// checkKernel refuses two kernels for one image.
func checkKernel(ask api.ImageKernel) error {
	if ask.KernelRef != "" && ask != (api.ImageKernel{KernelRef: ask.KernelRef}) {
		return banger.Errorf(banger.BadRequest, "cannot take a kernel of the store and files of another")
	}
	return nil
}

// kernelOf finds the kernel an image is to be booted with, taken in from files
// where those were named.
func (d *daemon) kernelOf(ctx context.Context, image string, ask api.ImageKernel, stage func(string)) (chosenKernel, error) {
	files := kernelFiles{ask.Kernel, ask.Initrd, ask.Modules}
	none := func() {}
	switch {
	case ask.KernelRef != "":
		k, release, err := d.claimKernel(ctx, ask.KernelRef)
		return chosenKernel{k.Digest, kernelFiles{k.VmlinuzPath, "", k.ModulesPath}, none, release}, err
	case files == (kernelFiles{}):
		return chosenKernel{undo: none, release: none}, nil
	}
	stage("import the kernel")
	_, err := d.kernels.Get(image)
	isNew := banger.CodeOf(err) == banger.NotFound
	// Fresh: a kernel of the image's name may be the one that all others boot.
	k, err := d.kernels.Import(ctx, kernel.ImportRequest{Name: image, Vmlinuz: ask.Kernel, Modules: ask.Modules, Fresh: true})
	if err != nil {
		return chosenKernel{}, err
	}
	_, release, err := d.claimKernel(ctx, k.Digest)
	undo := none
	if isNew {
		undo = func() { release(); d.forgetKernel(ctx, image) }
	}
	return chosenKernel{k.Digest, files, undo, release}, err
}

// forgetKernel takes away what was taken in for an image that was not made.
func (d *daemon) forgetKernel(ctx context.Context, name string) {
	if err := d.deleteKernel(context.WithoutCancel(ctx), &ofRef{name}); err != nil {
		d.log.Warn("cannot remove the kernel of an image that was not made", "kernel", name, "err", err)
	}
}

// layersOfUse says which blobs of the cache are worth keeping: those of images
// that there are, which share them with newer ones of the same kind.
func (d *daemon) layersOfUse() (func(digest string) bool, error) {
	rows, err := d.images.store.Images(context.Background())
	used := map[string]bool{}
	for _, row := range rows {
		_, record, err := image.Load(row.ArtifactDir)
		for _, layer := range record.Layers {
			used[layer] = err == nil
		}
	}
	return func(digest string) bool { return used[digest] }, err
}
