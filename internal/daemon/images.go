package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/oci"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// images joins the rows of images with their directories.
type images struct {
	store   *store.Store
	builder image.Builder
	dirs    paths.Dirs
	names   turns // of those that are being made or deleted
}

// Ensure implements vm.Images.
func (i *images) Ensure(ctx context.Context, ref string, access banger.Access, stage func(string)) (vm.Image, error) {
	row, err := i.find(ctx, ref)
	if banger.CodeOf(err) == banger.NotFound && (inCatalogue(ref) || fromRegistry(ref)) {
		row, err = i.pull(ctx, pull{ref: ref, PullRequest: image.PullRequest{Access: access}}, stage)
	}
	if err != nil {
		return vm.Image{}, err
	}
	return i.load(row)
}

// Image implements vm.Images.
func (i *images) Image(ctx context.Context, id string) (vm.Image, error) {
	row, err := i.store.Image(ctx, id)
	if err != nil {
		return vm.Image{}, err
	}
	return i.load(row)
}

func (i *images) load(row banger.Image) (vm.Image, error) {
	_, r, err := image.Load(i.recordDir(row))
	if !row.Managed && banger.CodeOf(err) == banger.NotFound {
		return vm.Image{Image: row}, nil // of another tool
	}
	if err == nil {
		err = r.Unchanged()
	}
	found := vm.Image{Image: row, Digest: r.Digest, Env: r.Env, WorkDir: r.WorkDir, User: r.User, Kernel: r.Kernel}
	if r.Seed != nil {
		found.Seed = r.Seed.Digest
	}
	return found, err
}

func inCatalogue(name string) bool {
	for _, e := range image.Catalogue() {
		if e.Name == name {
			return true
		}
	}
	return false
}

// fromRegistry says whether ref can be meant for a registry.
func fromRegistry(ref string) bool {
	_, err := oci.Parse(ref)
	return err == nil
}

func (i *images) find(ctx context.Context, ref string) (banger.Image, error) {
	all, err := i.store.Images(ctx)
	if err != nil {
		return banger.Image{}, err
	}
	return banger.Resolve("image", ref, all)
}

// delete removes an image nothing uses, and that nobody is about to make.
func (i *images) delete(ctx context.Context, row banger.Image) error {
	done, other := i.names.try(row.Name, "")
	if done == nil {
		return banger.Errorf(banger.Busy, "cannot delete the image %s: it is used by %s", row.Name, other.holder()).
			Hint("try again when that is done")
	}
	defer done()
	return i.remove(ctx, row)
}

// remove is delete by whoever has the name's turn: the row first, which the
// store refuses while a VM refers to it, then the directory.
func (i *images) remove(ctx context.Context, row banger.Image) error {
	if err := i.unused(ctx, row); err != nil {
		return err
	}
	if err := i.store.DeleteImage(ctx, row.ID); err != nil {
		return err
	}
	return discard(i.dirs, i.dirs.Image(row.ID)) // never a person's own files
}

func (i *images) unused(ctx context.Context, row banger.Image) error {
	users, err := i.store.VMsUsingImage(ctx, row.ID)
	if err == nil && len(users) > 0 {
		err = inUse("image", row.Name, namesOf(users), nil)
	}
	return err
}

// takeUp makes the ledger say what directories say: it finishes promotions, and
// writes the rows that are lacking. The newest of a name comes first, and who finds
// its name taken gets another: a VM may be made of either.
func (i *images) takeUp(ctx context.Context, log *slog.Logger) error {
	rows, err := i.store.Images(ctx)
	if err != nil {
		return err
	}
	known, taken := map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		known[row.ID], taken[row.Name] = true, true
		if err := i.finishPromotion(ctx, row); err != nil {
			log.Warn("cannot finish to promote an image", "image", row.ID, "name", row.Name, "err", err)
		}
	}
	lost, err := i.builder.Lost(known)
	slices.SortStableFunc(lost, func(a, b image.Record) int { return b.CreatedAt.Compare(a.CreatedAt) })
	for _, r := range lost {
		row, err := i.restore(ctx, r, taken)
		if err != nil {
			log.Warn("cannot take up an image that has no row", "image", r.ID, "name", r.Name, "err", err)
			continue
		}
		taken[row.Name] = true
		log.Warn("restored the row of an image from its directory", "image", r.ID, "name", row.Name)
	}
	return err
}

// finishPromotion has the row of an image follow its record, which came first.
func (i *images) finishPromotion(ctx context.Context, row banger.Image) error {
	if row.Managed {
		return nil
	}
	promoted, r, err := image.Load(i.dirs.Image(row.ID))
	if err != nil || r.Registered != nil {
		return nil // another tool's, or as it was
	}
	return i.store.UpsertImage(ctx, asPromoted(row, promoted))
}

// restore writes the row of an image that has only its directory.
func (i *images) restore(ctx context.Context, r image.Record, taken map[string]bool) (banger.Image, error) {
	dir := i.dirs.Image(r.ID)
	if taken[r.Name] {
		if err := image.Rename(dir, otherName(r)); err != nil {
			return banger.Image{}, err
		}
	}
	row, _, err := image.Load(dir)
	if err == nil {
		err = i.store.UpsertImage(ctx, row)
	}
	return row, err
}

// otherName is a name that only this image has.
func otherName(r image.Record) string {
	const longest = 128
	suffix := "-" + banger.ShortID(r.ID)
	return r.Name[:min(len(r.Name), longest-len(suffix))] + suffix
}

// asPromoted is a row of a registered image that has files of its own now.
func asPromoted(row, promoted banger.Image) banger.Image {
	row.Managed, row.ArtifactDir = true, promoted.ArtifactDir
	row.RootfsPath, row.WorkSeedPath = promoted.RootfsPath, promoted.WorkSeedPath
	return row
}

// discard removes a directory so that nobody ever sees half of it. What a
// crash left goes when the daemon starts.
func discard(dirs paths.Dirs, dir string) error {
	if err := os.MkdirAll(dirs.ImageTrash(), 0o700); err != nil {
		return err
	}
	trash := filepath.Join(dirs.ImageTrash(), banger.NewID())
	if err := os.Rename(dir, trash); os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	return os.RemoveAll(trash)
}

// inUse refuses to delete what VMs or images need. A snapshot is a part of its VM
// and needs no more than that.
func inUse(kind, name string, vms, images []string) error {
	users := slices.Clone(vms)
	for _, name := range images {
		users = append(users, "the image "+name)
	}
	err := banger.Errorf(banger.Conflict, "cannot delete the %s %s: it is used by %s", kind, name, strings.Join(users, ", "))
	if len(vms) > 0 {
		err = err.Hint("banger rm %s", strings.Join(vms, " "))
	}
	if len(images) > 0 {
		err = err.Hint("banger image delete %s", strings.Join(images, " "))
	}
	return err
}

func namesOf(vms []banger.VM) []string {
	out := []string{}
	for _, v := range vms {
		out = append(out, v.Name)
	}
	return out
}

func (d *daemon) listImages(ctx context.Context, _ *none) ([]api.Image, error) {
	rows, err := d.images.store.Images(ctx)
	if err != nil {
		return nil, err
	}
	users, err := d.users(ctx, func(v banger.VM) string { return v.ImageID })
	if err != nil {
		return nil, err
	}
	all := make([]api.Image, len(rows))
	for n, row := range rows {
		all[n] = shownImage(row, users[row.ID])
	}
	return all, nil
}

// users gives the names of VMs by what they use.
func (d *daemon) users(ctx context.Context, of func(banger.VM) string) (map[string][]string, error) {
	rows, err := d.rows.VMs(ctx)
	users := map[string][]string{}
	for _, v := range rows {
		users[of(v)] = append(users[of(v)], v.Name)
	}
	return users, err
}

func (d *daemon) showImage(ctx context.Context, in *ofRef) (api.Image, error) {
	row, err := d.images.find(ctx, in.Ref)
	if err != nil {
		return api.Image{}, err
	}
	return d.describeImage(ctx, row)
}

func (d *daemon) describeImage(ctx context.Context, row banger.Image) (api.Image, error) {
	users, err := d.images.store.VMsUsingImage(ctx, row.ID)
	return shownImage(row, namesOf(users)), err
}

func (d *daemon) deleteImage(ctx context.Context, in *ofRef) error {
	row, err := d.images.find(ctx, in.Ref)
	if err != nil {
		return err
	}
	return d.images.delete(ctx, row)
}

func shownImage(row banger.Image, users []string) api.Image {
	out := api.Image{
		ID: row.ID, Name: row.Name, Managed: row.Managed, RootfsPath: row.RootfsPath, WorkSeedPath: row.WorkSeedPath,
		ArtifactDir: row.ArtifactDir, KernelPath: row.KernelPath, InitrdPath: row.InitrdPath, ModulesDir: row.ModulesDir,
		BuildSize: row.BuildSize, UsedBy: list(users), CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
	// An image whose directory is gone can still be listed and deleted.
	if _, record, err := image.Load(row.ArtifactDir); err == nil && record.ID == row.ID {
		if record.Seed != nil {
			out.WorkSeedDigest, out.WorkSeedBytes = "sha256:"+record.Seed.Digest, record.Seed.SizeBytes
		}
		out.Digest, out.Source, out.SizeBytes = "sha256:"+record.Digest, record.Source, record.SizeBytes
		out.Env, out.WorkDir, out.User = record.Env, record.WorkDir, record.User
		out.Entrypoint, out.Cmd = record.Entrypoint, record.Cmd
		out.Kernel, out.Ref, out.Manifest = record.Kernel, record.Ref, record.Manifest
	}
	return out
}
