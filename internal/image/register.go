package image

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
)

// Registered is a person's own file, as it was when it became an image.
type Registered struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
}

// look is what a file is now.
func look(path string) (Registered, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Registered{}, err
	}
	return Registered{Path: path, Size: info.Size(), ModTime: info.ModTime().UTC()}, nil
}

// survey is a person's file and its digest, provided that it is an ext4 file
// system that can be mounted as it is and nobody writes to it meanwhile.
func survey(ctx context.Context, path string) (was Registered, digest string, err error) {
	if was, err = look(path); err != nil {
		return was, "", err
	}
	if err = ext4.Check(path); err != nil {
		return was, "", err
	}
	if digest, err = artifact.SHA256(ctx, path); err != nil {
		return was, "", err
	}
	if now, err := look(path); err != nil || now != was {
		return was, "", banger.Errorf(banger.Conflict, "it changes")
	}
	return was, digest, nil
}

// Registration is what to make an image of.
type Registration struct {
	Name   string
	Rootfs string // path of a person's own ext4 file
	Seed   string // path of a work seed, another one, or ""
	Kernel string // digest of the one its VMs boot, or ""
}

// Register makes an image of a person's own files, which stay where they are
// and are never written.
func (b Builder) Register(ctx context.Context, g Registration, progress func(string)) (banger.Image, error) {
	if err := banger.ValidateImageName(g.Name); err != nil {
		return banger.Image{}, err
	}
	refuse := func(path string, err error) (banger.Image, error) {
		if ctx.Err() != nil {
			return banger.Image{}, cancelled(ctx, err)
		}
		return banger.Image{}, banger.Errorf(banger.BadRequest, "cannot register %s as the image %s: %w", path, g.Name, err)
	}
	progress("compute the digest")
	was, digest, err := survey(ctx, g.Rootfs)
	if err != nil {
		return refuse(g.Rootfs, err)
	}
	seed, err := surveySeed(ctx, g.Seed)
	if err != nil {
		return refuse(g.Seed, err)
	}
	r := Record{
		ID: banger.NewID(), Name: g.Name, Digest: digest, Source: g.Rootfs, SizeBytes: was.Size,
		CreatedAt: time.Now().UTC().Truncate(time.Second), Kernel: g.Kernel, Registered: &was, Seed: seed,
	}
	dir := filepath.Join(b.Dir, r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return banger.Image{}, err
	}
	if err := writeRecord(dir, r); err != nil {
		return banger.Image{}, err
	}
	img, _, err := Load(dir)
	return img, err
}

// Unchanged says whether a registered image's files are what they were. VMs have
// their blocks in memory and in their own disks' places: another content under
// them would be a damaged file system.
func (r Record) Unchanged() error {
	for _, was := range []*Registered{r.Registered, r.Seed.registered()} {
		if err := r.unchanged(was); err != nil {
			return err
		}
	}
	return nil
}

func (r Record) unchanged(was *Registered) error {
	if was == nil {
		return nil
	}
	now, err := look(was.Path)
	if err != nil {
		return banger.Errorf(banger.Conflict, "the file of the image %s cannot be read: %w", r.Name, err)
	}
	if now.Size == was.Size && now.ModTime.Equal(was.ModTime) {
		return nil
	}
	return banger.Errorf(banger.Conflict, "the file of the image %s, %s, has changed since it was registered", r.Name, now.Path).
		Hint("banger image register --name OTHER %s", r.files())
}

// files are the flags that name a registered image's files.
func (r Record) files() string {
	flags := "--rootfs " + banger.ShellWord(r.Source)
	if seed := r.Seed.registered(); seed != nil {
		flags += " --work-seed " + banger.ShellWord(seed.Path)
	}
	return flags
}

// Promote copies a registered image's files to where nobody changes them, and
// makes the image a managed one, unless an earlier call has.
func (b Builder) Promote(ctx context.Context, dir string) (banger.Image, error) {
	was, r, err := Load(dir)
	if err != nil || r.Registered == nil {
		return was, err
	}
	if err := r.Unchanged(); err != nil {
		return banger.Image{}, err
	}
	err = takeIn(ctx, *r.Registered, r.Digest, filepath.Join(dir, rootfsFile))
	if err == nil && r.Seed != nil {
		err = takeIn(ctx, *r.Seed.Registered, r.Seed.Digest, filepath.Join(dir, seedFile))
	}
	if err != nil {
		return banger.Image{}, banger.Wrap(cancelled(ctx, fileError(err)), "cannot promote the image %s", r.Name)
	}
	r.Registered, r.Seed = nil, r.Seed.managed()
	if err := writeRecord(dir, r); err != nil {
		return banger.Image{}, err
	}
	img, _, err := Load(dir)
	return img, err
}

// partOf is a copy that is not whole yet.
func partOf(path string) string {
	return filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path))
}

// takeIn copies and proves that it is what was registered.
func takeIn(ctx context.Context, from Registered, digest, target string) error {
	part := partOf(target)
	if err := os.Remove(part); err != nil && !os.IsNotExist(err) {
		return err // what a crash left
	}
	defer os.Remove(part)
	if err := ext4.Copy(ctx, from.Path, part); err != nil {
		return err
	}
	sum, err := artifact.SHA256(ctx, part)
	if err != nil {
		return err
	}
	if sum != digest {
		return banger.Errorf(banger.Conflict, "its file %s is not what it was: sha256:%s instead of %s", from.Path, sum, digest)
	}
	if err := artifact.Sync(part); err != nil {
		return err
	}
	return artifact.Rename(part, target)
}

// Rename writes the name of the image in dir into its record.
func Rename(dir, name string) error {
	_, r, err := Load(dir)
	if err != nil {
		return err
	}
	r.Name, r.Catalogue = name, r.Catalogue && name == r.Name // by another one it is itself again
	return writeRecord(dir, r)
}

func writeRecord(dir string, r Record) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return artifact.WriteFile(filepath.Join(dir, recordFile), append(content, '\n'))
}
