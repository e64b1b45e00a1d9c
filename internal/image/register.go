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

// Register makes an image of a person's own file, which stays where it is and
// is never written.
func (b Builder) Register(ctx context.Context, name, path, kernel string, progress func(string)) (banger.Image, error) {
	if err := banger.ValidateImageName(name); err != nil {
		return banger.Image{}, err
	}
	refuse := func(err error) (banger.Image, error) {
		return banger.Image{}, banger.Errorf(banger.BadRequest, "cannot register %s as the image %s: %w", path, name, err)
	}
	was, err := look(path)
	if err == nil {
		err = ext4.Check(path)
	}
	if err != nil {
		return refuse(err)
	}
	progress("compute the digest")
	digest, err := artifact.SHA256(ctx, path)
	if err != nil {
		return banger.Image{}, cancelled(ctx, err)
	}
	if now, err := look(path); err != nil || now != was {
		return refuse(banger.Errorf(banger.Conflict, "it changes"))
	}
	r := Record{
		ID: banger.NewID(), Name: name, Digest: digest, Source: path, SizeBytes: was.Size,
		CreatedAt: time.Now().UTC().Truncate(time.Second), Kernel: kernel, Registered: &was,
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

// Unchanged says whether a registered image's file is what it was. VMs have
// its blocks in memory and in their own disks' places: another content under
// them would be a damaged file system.
func (r Record) Unchanged() error {
	if r.Registered == nil {
		return nil
	}
	now, err := look(r.Registered.Path)
	if err != nil {
		return banger.Errorf(banger.Conflict, "the file of the image %s cannot be read: %w", r.Name, err)
	}
	if now.Size != r.Registered.Size || !now.ModTime.Equal(r.Registered.ModTime) {
		return banger.Errorf(banger.Conflict, "the file of the image %s, %s, has changed since it was registered", r.Name, now.Path).
			Hint("banger image register --name OTHER --rootfs %s", now.Path)
	}
	return nil
}

// Promote copies a registered image's file to where nobody changes it, and
// makes the image a managed one, unless an earlier call has.
func (b Builder) Promote(ctx context.Context, dir string) (banger.Image, error) {
	was, r, err := Load(dir)
	if err != nil || r.Registered == nil {
		return was, err
	}
	if err := r.Unchanged(); err != nil {
		return banger.Image{}, err
	}
	if err := b.takeIn(ctx, r, dir); err != nil {
		return banger.Image{}, banger.Wrap(cancelled(ctx, fileError(err)), "cannot promote the image %s", r.Name)
	}
	r.Registered = nil
	if err := writeRecord(dir, r); err != nil {
		return banger.Image{}, err
	}
	img, _, err := Load(dir)
	return img, err
}

// partRootfs is a copy that is not whole yet.
const partRootfs = ".tmp-" + rootfsFile

// takeIn copies and proves that it is what was registered.
func (b Builder) takeIn(ctx context.Context, r Record, dir string) error {
	part := filepath.Join(dir, partRootfs)
	if err := os.Remove(part); err != nil && !os.IsNotExist(err) {
		return err // what a crash left
	}
	defer os.Remove(part)
	if err := ext4.Copy(ctx, r.Registered.Path, part); err != nil {
		return err
	}
	sum, err := artifact.SHA256(ctx, part)
	if err != nil {
		return err
	}
	if sum != r.Digest {
		return banger.Errorf(banger.Conflict, "its file is not what it was: sha256:%s instead of %s", sum, r.Digest)
	}
	if err := artifact.Sync(part); err != nil {
		return err
	}
	return artifact.Rename(part, filepath.Join(dir, rootfsFile))
}

// Rename writes the name of the image in dir into its record.
func Rename(dir, name string) error {
	_, r, err := Load(dir)
	if err != nil {
		return err
	}
	r.Name = name
	return writeRecord(dir, r)
}

func writeRecord(dir string, r Record) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return artifact.WriteFile(filepath.Join(dir, recordFile), append(content, '\n'))
}
