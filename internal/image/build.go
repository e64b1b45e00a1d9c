package image

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/artifact"
	"banger/internal/oci"
)

// Builder makes images in a directory that holds one directory per image,
// named by its id. Several processes may use one; names that begin with a dot
// are its own.
type Builder struct {
	Dir   string
	Cache oci.Cache // of layers
	// Instead is the image of a registry for hosts that cannot build that of the
	// catalogue; "" for the usual one.
	Instead string

	anew bool
}

// Anew is a builder that makes every image, whether Dir holds it or not.
func (b Builder) Anew() Builder {
	b.anew = true
	return b
}

// Build gives the image of the catalogue of that name, which it makes unless
// Dir holds it already. Two calls for one name make it once. A cancelled or
// failed build leaves nothing; what a crash left goes with the next build.
// progress, which may be nil, is told of each stage.
//
// It is made of the host's package sources. A host that has none for it, being
// another system, gets the image of a registry instead.
func (b Builder) Build(ctx context.Context, name string, access banger.Access, progress func(stage string)) (banger.Image, error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := banger.ValidateImageName(name); err != nil {
		return banger.Image{}, err
	}
	if name != banger.DefaultImage {
		return banger.Image{}, banger.Errorf(banger.NotFound, "cannot build the image %s: the catalogue has none of that name", name).
			Hint("banger image pull %s", banger.DefaultImage)
	}
	img, err := b.once(ctx, name, func(Record) bool { return true }, func(dir string, lock *os.File) (Record, error) {
		packages, err := buildDebian(ctx, debianBookworm, dir, lock, access.Proxies(), progress)
		if errors.Is(err, errElsewhere) {
			return b.pullInstead(ctx, name, access, dir, progress)
		}
		progress("computing the digest")
		return Record{Source: debianBookworm.source, Env: debianBookworm.env, Packages: packages}, err
	})
	return img, banger.Wrap(cancelled(ctx, err), "cannot build the image %s", name)
}

// pullInstead gets the like of an image of the catalogue from a registry.
func (b Builder) pullInstead(ctx context.Context, name string, access banger.Access, dir string, progress func(string)) (Record, error) {
	ref, err := oci.Parse(cmp.Or(b.Instead, debianBookworm.ref))
	if err != nil {
		return Record{}, err
	}
	progress("this host has no package sources for " + name + ": pulling the smaller image " + ref.String())
	r, err := b.pull(ctx, PullRequest{Ref: ref, Name: name, Access: access}, dir, progress)
	r.Catalogue = true
	return r, err
}

// once gives the image of that name that is wanted, or has make make it in a
// directory of its own.
func (b Builder) once(ctx context.Context, name string, wanted func(Record) bool, make func(dir string, lock *os.File) (Record, error)) (banger.Image, error) {
	lock, err := artifact.LockFile(ctx, filepath.Join(b.Dir, ".lock-"+name))
	if err != nil {
		return banger.Image{}, err
	}
	defer artifact.Unlock(lock)
	if img, found := b.find(name, wanted); found && !b.anew {
		return img, nil
	}
	// The lock is held, so whatever lies there is left from a crash.
	dir, err := filepath.Abs(filepath.Join(b.Dir, ".build-"+name)) // mmdebstrap runs elsewhere
	if err != nil {
		return banger.Image{}, err
	}
	if err := clearBuild(dir); err != nil {
		return banger.Image{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return banger.Image{}, err
	}
	defer clearBuild(dir)
	r, err := make(dir, lock)
	if err != nil {
		return banger.Image{}, err
	}
	r.ID, r.Name, r.CreatedAt = banger.NewID(), name, time.Now().UTC().Truncate(time.Second)
	if err := b.publish(ctx, dir, r); err != nil {
		return banger.Image{}, err
	}
	img, _, err := Load(filepath.Join(b.Dir, r.ID))
	return img, err
}

// cancelled makes what follows from an ended context say so.
func cancelled(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "it was cancelled: %w", ctx.Err())
	}
	return err
}

func (b Builder) find(name string, wanted func(Record) bool) (banger.Image, bool) {
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return banger.Image{}, false
	}
	for _, e := range entries {
		if !banger.IsID(e.Name()) {
			continue
		}
		if img, r, err := Load(filepath.Join(b.Dir, e.Name())); err == nil && img.Managed && r.Name == name && wanted(r) {
			return img, true
		}
	}
	return banger.Image{}, false
}

// publish completes the record and moves the image to its place.
func (b Builder) publish(ctx context.Context, dir string, r Record) error {
	rootfs := filepath.Join(dir, rootfsFile)
	info, err := os.Stat(rootfs)
	if err != nil {
		return err
	}
	r.SizeBytes = info.Size()
	if r.Digest, err = syncedSHA256(ctx, rootfs); err != nil {
		return err
	}
	files := []string{rootfsFile, recordFile}
	if r.Seed, err = seedMade(ctx, dir, r.Seed); err != nil {
		return err
	}
	if r.Seed != nil {
		files = append(files, seedFile)
	}
	if err := writeRecord(dir, r); err != nil {
		return err
	}
	final := filepath.Join(dir, "image")
	if err := os.Mkdir(final, 0o700); err != nil {
		return err
	}
	for _, name := range files {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(final, name)); err != nil {
			return err
		}
	}
	return artifact.Publish(final, filepath.Join(b.Dir, r.ID))
}

// syncedSHA256 hashes a file while it is written to the disk.
func syncedSHA256(ctx context.Context, path string) (string, error) {
	var both errgroup.Group
	both.Go(func() error { return artifact.Sync(path) })
	digest, err := artifact.SHA256(ctx, path)
	return digest, errors.Join(both.Wait(), err)
}
