// Package image builds and keeps root file systems: directories with a
// read-only ext4 file and the record of what it is.
//
// It knows nothing of rows, VMs or who uses an image.
package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/artifact"
)

// Names inside an image's directory.
const (
	rootfsFile = "rootfs.ext4"
	seedFile   = "work-seed.ext4"
	recordFile = "image.json"
)

// Record is image.json: what a managed image is, kept beside its file.
type Record struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"` // when it was made; a row may call it otherwise
	Digest    string    `json:"digest"`
	Source    string    `json:"source"` // where it came from, for people
	SizeBytes int64     `json:"size_bytes"`
	CreatedAt time.Time `json:"created_at"`
	Packages  int       `json:"packages,omitempty"`
	BuildSize string    `json:"build_size,omitempty"` // least disk size of its VMs
	Kernel    string    `json:"kernel,omitempty"`     // digest of the kernel its VMs boot, where it has one of its own

	Env        []string `json:"env"` // of commands run in it
	WorkDir    string   `json:"work_dir,omitempty"`
	User       string   `json:"user,omitempty"`       // who runs commands, where that is not root
	OwnUser    bool     `json:"own_user,omitempty"`   // it was pulled to run commands as its user, if it names one
	Entrypoint []string `json:"entrypoint,omitempty"` // for people to see: nothing runs it
	Cmd        []string `json:"cmd,omitempty"`

	Ref       string   `json:"ref,omitempty"`       // of an image of a registry
	Manifest  string   `json:"manifest,omitempty"`  // its digest
	Layers    []string `json:"layers,omitempty"`    // digests, the lowest first
	Catalogue bool     `json:"catalogue,omitempty"` // it stands for one of the catalogue that could not be built

	Registered *Registered `json:"registered,omitempty"` // of an image that is a person's own file
	Seed       *Seed       `json:"work_seed,omitempty"`
}

// Entry is one image of the catalogue: what Build can make.
type Entry struct {
	Name        string
	Description string
	Source      string
}

// Catalogue lists what Build can make.
func Catalogue() []Entry {
	return []Entry{{
		Name:        banger.DefaultImage,
		Description: "Debian 12 with git, gcc, make, python3, curl and systemd",
		Source:      "built with mmdebstrap from the host's package sources, else the image debian:bookworm of a registry",
	}}
}

// Load reads the image in dir.
func Load(dir string) (banger.Image, Record, error) {
	var r Record
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return banger.Image{}, r, banger.Errorf(banger.NotFound, "there is no image in %s: %w", dir, err)
	case err != nil:
		return banger.Image{}, r, banger.Errorf(banger.Internal, "cannot read the image in %s: %w", dir, err)
	}
	img := banger.Image{
		ID: r.ID, Name: r.Name, Managed: true, ArtifactDir: dir,
		RootfsPath: filepath.Join(dir, rootfsFile),
		BuildSize:  cmp.Or(r.BuildSize, banger.FormatSize(banger.MinDisk)), // the root is not on the VM's disk
		CreatedAt:  r.CreatedAt, UpdatedAt: r.CreatedAt,
	}
	if r.Registered != nil {
		img.Managed, img.RootfsPath = false, r.Registered.Path
	}
	img.WorkSeedPath = r.Seed.pathIn(dir)
	return img, r, nil
}

// Verify reads the whole image in dir and compares it with its record. One
// that differs is banger.Conflict.
func Verify(ctx context.Context, dir string) error {
	img, r, err := Load(dir)
	if err != nil {
		return err
	}
	if err := r.verify(ctx, img.RootfsPath, r.Digest); err != nil || r.Seed == nil {
		return err
	}
	return r.verify(ctx, img.WorkSeedPath, r.Seed.Digest)
}

// verify compares one file of the image with what it was.
func (r Record) verify(ctx context.Context, path, digest string) error {
	sum, err := artifact.SHA256(ctx, path)
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot verify the image %s: %w", r.Name, err)
	}
	if sum == digest {
		return nil
	}
	damaged := banger.Errorf(banger.Conflict, "the image %s is damaged: %s has the digest %s instead of %s", r.Name, path, sum, digest)
	if !r.Again() {
		return damaged.Hint("banger image delete %s", r.Name)
	}
	return damaged.Hint("banger image pull --force %s", r.Name)
}

// Again says whether a pull of the image's name gets its like. Of one that was
// made of a VM, or came in a pack, there is no other; whatever else has its name is
// something else.
func (r Record) Again() bool {
	return r.Ref != "" || r.Registered == nil && r.Packages > 0 && slices.ContainsFunc(Catalogue(), func(e Entry) bool { return e.Name == r.Name })
}
