package image

import (
	"context"
	"os"
	"path/filepath"

	"banger/internal/artifact"
)

// Seed is an image's work seed: an ext4 file whose tree fills /root when a VM
// boots for the first time. Only guests ever look into it.
type Seed struct {
	Digest     string      `json:"digest"` // sha256, hex
	SizeBytes  int64       `json:"size_bytes"`
	Registered *Registered `json:"registered,omitempty"` // where it is a person's own file
}

// surveySeed is the seed that the file at path makes, none where that is empty.
func surveySeed(ctx context.Context, path string) (*Seed, error) {
	if path == "" {
		return nil, nil
	}
	was, digest, err := survey(ctx, path)
	return &Seed{Digest: digest, SizeBytes: was.Size, Registered: &was}, err
}

// pathIn is where the seed of the image in dir is, "" where it has none.
func (s *Seed) pathIn(dir string) string {
	switch {
	case s == nil:
		return ""
	case s.Registered != nil:
		return s.Registered.Path
	}
	return filepath.Join(dir, seedFile)
}

func (s *Seed) registered() *Registered {
	if s == nil {
		return nil
	}
	return s.Registered
}

// managed is the seed as one in banger's own directory.
func (s *Seed) managed() *Seed {
	if s == nil {
		return nil
	}
	return &Seed{Digest: s.Digest, SizeBytes: s.SizeBytes}
}

// seedMade is the seed that was put beside the file system of an image that is
// being made, if one was.
func seedMade(ctx context.Context, dir string, s *Seed) (*Seed, error) {
	if s == nil {
		return nil, nil
	}
	path := filepath.Join(dir, seedFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	sum, err := artifact.SHA256(ctx, path)
	return &Seed{Digest: sum, SizeBytes: info.Size()}, err
}
