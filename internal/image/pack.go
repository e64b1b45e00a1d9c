package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
	"banger/internal/rootfs"
)

// A pack is a zstd-compressed tar with two files: manifest.json, and the file
// system it speaks of.
const (
	packManifest = "manifest.json"
	packFormat   = 1
	maxManifest  = 1 << 20
	maxWindow    = 32 << 20
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
	r.Registered, r.Kernel = nil, ""
	out, err := os.CreateTemp(filepath.Dir(path), ".tmp-pack-*")
	if err != nil {
		return banger.Errorf(banger.BadRequest, "cannot export the image %s: %w", r.Name, err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	err = pack(ctx, out, manifest{packFormat, r}, img.RootfsPath)
	if err == nil {
		err = errors.Join(out.Sync(), out.Close())
	}
	if err == nil {
		err = artifact.Rename(out.Name(), path)
	}
	return banger.Wrap(cancelled(ctx, fileError(err)), "cannot export the image %s", r.Name)
}

func pack(ctx context.Context, out io.Writer, m manifest, rootfs string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	defer z.Close()
	w, sum := tar.NewWriter(z), sha256.New()
	if err := w.WriteHeader(&tar.Header{Name: packManifest, Mode: 0o644, Size: int64(len(text)), ModTime: m.CreatedAt}); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: rootfsFile, Mode: 0o644, Size: m.SizeBytes, ModTime: m.CreatedAt}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, sum)}, artifact.Reader(ctx, f), make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.Digest {
		return banger.Errorf(banger.Conflict, "it is damaged: %s has the digest %s instead of %s", rootfs, got, m.Digest)
	}
	return errors.Join(w.Close(), z.Close())
}

// Import makes an image of a pack, which may come from anybody. name is the
// pack's own where it is empty.
func (b Builder) Import(ctx context.Context, path, name string, progress func(string)) (banger.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return banger.Image{}, banger.Errorf(banger.BadRequest, "cannot import the pack %s: %w", path, err)
	}
	defer f.Close()
	img, err := b.importFrom(ctx, f, name, progress)
	return img, banger.Wrap(cancelled(ctx, fileError(err)), "cannot import the pack %s", path)
}

// PackName gives the name of the image in a pack.
func PackName(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", banger.Errorf(banger.BadRequest, "cannot import the pack %s: %w", path, err)
	}
	defer f.Close()
	_, m, done, err := openPack(context.Background(), f)
	defer done()
	return m.Name, banger.Wrap(err, "cannot import the pack %s", path)
}

func (b Builder) importFrom(ctx context.Context, f io.Reader, name string, progress func(string)) (banger.Image, error) {
	progress("read the pack")
	in, m, done, err := openPack(ctx, f)
	defer done()
	if err != nil {
		return banger.Image{}, err
	}
	if name != "" {
		m.Name = name
	}
	return b.once(ctx, m.Name, func(Record) bool { return false }, func(dir string, _ *os.File) (Record, error) {
		target := filepath.Join(dir, rootfsFile)
		if err := unpack(in, m, target); err != nil {
			return Record{}, err
		}
		if err := ext4.Check(target); err != nil {
			return Record{}, banger.Errorf(banger.BadRequest, "its file system is refused: %w", err)
		}
		return m.Record, nil
	})
}

func bad(format string, args ...any) error { return banger.Errorf(banger.BadRequest, format, args...) }

// openPack reads a pack's manifest; done frees what that took.
func openPack(ctx context.Context, f io.Reader) (in *tar.Reader, m manifest, done func(), err error) {
	z, err := zstd.NewReader(bufio.NewReaderSize(artifact.Reader(ctx, f), 1<<20), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, m, func() {}, err
	}
	in = tar.NewReader(z)
	h, err := in.Next()
	switch {
	case err != nil:
		return in, m, z.Close, bad("it is no pack: %w", err)
	case h.Name != packManifest || h.Typeflag != tar.TypeReg || h.Size > maxManifest:
		return in, m, z.Close, bad("it is no pack: it begins with %.100q instead of %s", h.Name, packManifest)
	}
	text, err := io.ReadAll(in)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	switch {
	case err != nil:
		return in, m, z.Close, bad("its manifest cannot be read: %w", err)
	case m.Format != packFormat:
		return in, m, z.Close, banger.Errorf(banger.BadVersion, "it has the format %d, and this banger knows %d", m.Format, packFormat)
	case m.SizeBytes <= 0 || m.SizeBytes > rootfs.Default.Bytes:
		return in, m, z.Close, bad("its manifest claims %d bytes, of at most %d", m.SizeBytes, rootfs.Default.Bytes)
	}
	// What it says of where it came from anybody may have written, and a pull of
	// its name would believe it.
	m.Registered, m.Kernel, m.Ref, m.Manifest, m.Layers = nil, "", "", "", nil
	if err := checkBuildSize(m.BuildSize); err != nil {
		return in, m, z.Close, bad("its manifest has a bad size of disks: %w", err)
	}
	return in, m, z.Close, banger.ValidateImageName(m.Name)
}

func checkBuildSize(size string) error {
	if size == "" {
		return nil
	}
	bytes, err := banger.ParseSize(size)
	if err != nil {
		return err
	}
	return banger.ValidateDiskSize(bytes)
}

// unpack writes the file system of a pack, if it is the one that the manifest
// speaks of and nothing comes after it.
func unpack(in *tar.Reader, m manifest, target string) error {
	h, err := in.Next()
	switch {
	case err != nil:
		return bad("it ends after its manifest: %w", err)
	case h.Name != rootfsFile || h.Typeflag != tar.TypeReg:
		return bad("it has %.100q where %s should be", h.Name, rootfsFile)
	case h.Size != m.SizeBytes:
		return bad("its file system has %d bytes instead of %d", h.Size, m.SizeBytes)
	}
	sum := sha256.New()
	if err := ext4.WriteSparse(target, io.TeeReader(in, sum)); err != nil {
		var file *os.PathError
		if errors.As(err, &file) {
			return err
		}
		return bad("it is damaged: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.Digest {
		return bad("its file system has the digest sha256:%s instead of %s", got, m.Digest)
	}
	if h, err := in.Next(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("%.100q", h.Name)
		}
		return bad("it has more than an image: %w", err)
	}
	return nil
}
