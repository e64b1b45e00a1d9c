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

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
	"banger/internal/oci"
	"banger/internal/rootfs"
)

const maxManifest = 1 << 20

// Import makes an image of a pack, which may come from anybody. name is the
// pack's own where it is empty.
func (b Builder) Import(ctx context.Context, path, name string, progress func(string)) (banger.Image, error) {
	f, err := openPlain(path)
	if err != nil {
		return banger.Image{}, banger.Errorf(banger.BadRequest, "cannot import the pack %s: %w", path, err)
	}
	defer f.Close()
	img, err := b.importFrom(ctx, f, name, progress)
	return img, banger.Wrap(cancelled(ctx, fileError(err)), "cannot import the pack %s", path)
}

// PackName gives the name of the image in a pack.
func PackName(path string) (string, error) {
	f, err := openPlain(path)
	if err != nil {
		return "", banger.Errorf(banger.BadRequest, "cannot import the pack %s: %w", path, err)
	}
	defer f.Close()
	_, m, done, err := openPack(context.Background(), f)
	defer done()
	return m.Name, banger.Wrap(err, "cannot import the pack %s", path)
}

// openPlain opens a file that ends. To open a pipe would wait for who writes into it.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no plain file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
		for _, f := range m.files() {
			if err := f.unpack(in, dir); err != nil {
				return Record{}, err
			}
		}
		if h, err := in.Next(); err != io.EOF {
			if err == nil {
				err = fmt.Errorf("%.100q", h.Name)
			}
			return Record{}, bad("it has more than an image: %w", err)
		}
		return m.Record, nil
	})
}

func bad(format string, args ...any) error { return banger.Errorf(banger.BadRequest, format, args...) }

// openPack reads a pack's manifest; done frees what that took.
func openPack(ctx context.Context, f io.Reader) (in *tar.Reader, m manifest, done func(), err error) {
	z, err := oci.Unzstd(bufio.NewReaderSize(artifact.Reader(ctx, f), 1<<20))
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
	case m.Format != packFormat && m.Format != packSeeded:
		return in, m, z.Close, banger.Errorf(banger.BadVersion, "it has the format %d, and this banger knows %d and %d", m.Format, packFormat, packSeeded)
	case (m.Seed != nil) != (m.Format == packSeeded):
		return in, m, z.Close, bad("its manifest has the format %d, and a work seed goes with %d", m.Format, packSeeded)
	}
	for _, f := range m.files() {
		if f.size <= 0 || f.size > rootfs.Default.Bytes {
			return in, m, z.Close, bad("its manifest claims %d bytes for %s, of at most %d", f.size, f.name, rootfs.Default.Bytes)
		}
	}
	// What it says of where it came from anybody may have written, and a pull of
	// its name would believe it.
	m.Registered, m.Kernel, m.Ref, m.Manifest, m.Layers, m.Catalogue = nil, "", "", "", nil, false
	m.Seed = m.Seed.managed()
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

// unpack writes the pack's next file into dir, if it is the one that the manifest
// speaks of and a file system that can be mounted.
func (p packed) unpack(in *tar.Reader, dir string) error {
	h, err := in.Next()
	switch {
	case err == io.EOF:
		return bad("it ends where %s should be: %w", p.name, io.ErrUnexpectedEOF)
	case err != nil:
		return bad("it is damaged where %s should be: %w", p.name, err)
	case h.Name != p.name || h.Typeflag != tar.TypeReg:
		return bad("it has %.100q where %s should be", h.Name, p.name)
	case h.Size != p.size:
		return bad("%s has %d bytes instead of %d", p.name, h.Size, p.size)
	}
	sum, target := sha256.New(), filepath.Join(dir, p.name)
	if err := ext4.WriteSparse(target, io.TeeReader(in, sum)); err != nil {
		var file *os.PathError
		if errors.As(err, &file) {
			return err
		}
		return bad("it is damaged: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.digest {
		return bad("%s has the digest sha256:%s instead of %s", p.name, got, p.digest)
	}
	if err := ext4.Check(target); err != nil {
		return bad("%s is refused: %w", p.name, err)
	}
	return nil
}
