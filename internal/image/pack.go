package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"banger"
	"banger/internal/artifact"
)

// A pack is a zstd-compressed tar with two files: manifest.json, and the file
// system it speaks of. One of an image with a work seed has that as a third, and
// another format, so that a banger that knows no seeds does not lose it silently.
const (
	packManifest = "manifest.json"
	packFormat   = 1
	packSeeded   = 2
)

// manifest is what a pack says of itself: the record, but for what is only
// true where it comes from.
type manifest struct {
	Format int `json:"format"`
	Record
}

// Export writes a pack of the image in dir to path, whole or not at all.
func Export(ctx context.Context, dir, path string) error {
	img, r, err := Load(dir)
	if err == nil {
		err = r.Unchanged()
	}
	if err != nil {
		return err
	}
	r.Registered, r.Kernel, r.Seed = nil, "", r.Seed.managed()
	if path, err = packTarget(path); err != nil {
		return banger.Wrap(err, "cannot export the image %s", r.Name)
	}
	out, err := newUnnamed(path)
	if err != nil {
		return banger.Errorf(banger.BadRequest, "cannot export the image %s: %w", r.Name, err)
	}
	defer out.drop()
	err = pack(ctx, out, manifestOf(r), map[string]string{rootfsFile: img.RootfsPath, seedFile: img.WorkSeedPath})
	if err == nil {
		err = out.publish()
	}
	return banger.Wrap(cancelled(ctx, fileError(err)), "cannot export the image %s", r.Name)
}

// packTarget is what a pack takes the place of: a plain file, that a link leads to
// perhaps, or nothing yet. A device or a pipe would be one no more.
func packTarget(path string) (string, error) {
	if there, err := filepath.EvalSymlinks(path); err == nil {
		path = there // a link stays one
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", banger.Errorf(banger.BadRequest, "%w", err)
	case info.IsDir():
		return "", banger.Errorf(banger.BadRequest, "%s is a directory", path).Hint("name a file in it")
	case !info.Mode().IsRegular():
		return "", banger.Errorf(banger.BadRequest, "%s is no plain file", path).Hint("name one, or a file that is not there yet")
	}
	return path, nil
}

// manifestOf is what a pack of the image says.
func manifestOf(r Record) manifest {
	if r.Seed != nil {
		return manifest{packSeeded, r}
	}
	return manifest{packFormat, r}
}

// pack writes a pack of the files at paths, which are by their names in it.
func pack(ctx context.Context, out io.Writer, m manifest, paths map[string]string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	defer z.Close()
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: packManifest, Mode: 0o644, Size: int64(len(text)), ModTime: m.CreatedAt}); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	for _, f := range m.files() {
		if err := f.pack(ctx, w, m.CreatedAt, paths[f.name]); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), z.Close())
}

// packed is a file system of a pack, as its manifest has it.
type packed struct {
	name   string
	size   int64
	digest string
}

// files are the file systems that a pack has, in their order.
func (m manifest) files() []packed {
	all := []packed{{rootfsFile, m.SizeBytes, m.Digest}}
	if m.Seed != nil {
		all = append(all, packed{seedFile, m.Seed.SizeBytes, m.Seed.Digest})
	}
	return all
}

func (p packed) pack(ctx context.Context, w *tar.Writer, made time.Time, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(&tar.Header{Name: p.name, Mode: 0o644, Size: p.size, ModTime: made}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, sum)}, artifact.Reader(ctx, f), make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.digest {
		return banger.Errorf(banger.Conflict, "it is damaged: %s has the digest %s instead of %s", path, got, p.digest)
	}
	return nil
}
