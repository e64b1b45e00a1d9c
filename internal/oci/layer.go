package oci

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"banger"
)

// Fetch makes sure that a layer is in the cache.
func (i *Image) Fetch(ctx context.Context, cache Cache, l Layer) error {
	_, err := cache.fetch(ctx, i.from, l.Digest, l.Size)
	return banger.Wrap(explain(ctx, err, i.Ref), "cannot get the layer %s of %s", l, i.Ref)
}

// Unpack calls use with the tar stream of a layer that was fetched, and checks
// that it is the one the image is made of. One that is not is removed from the
// cache: the error is banger.Conflict, as for one that is gone, and the layer can
// be fetched again.
func (i *Image) Unpack(ctx context.Context, cache Cache, l Layer, use func(io.Reader) error) error {
	f, err := os.Open(cache.path(l.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return banger.Errorf(banger.Conflict, "the layer %s is no longer in the cache: %w", l, err).Hint("try again")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := open(f)
	if err == nil {
		defer r.Close()
		sum := sha256.New()
		if err = use(io.TeeReader(r, sum)); err == nil {
			err = checkSum(sum, l)
		}
	}
	if err == nil {
		return nil
	}
	return i.blame(ctx, f, l, err)
}

func checkSum(sum hash.Hash, l Layer) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.DiffID.Hex {
		return fmt.Errorf("it unpacks to sha256:%s instead of %s", got, l.DiffID)
	}
	return nil
}

// blame finds out whether the file is no longer what was fetched, or was wrong
// from the beginning.
func (i *Image) blame(ctx context.Context, f *os.File, l Layer, why error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var host *fs.PathError // such as of a full disk
	if errors.As(why, &host) {
		return why
	}
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != l.Digest.Hex {
		return errors.Join(banger.Errorf(banger.Conflict, "the cached layer %s was damaged, and is removed", l), os.Remove(f.Name()))
	}
	if banger.CodeOf(why) != banger.Internal {
		return why
	}
	return banger.Errorf(banger.BadRequest, "the layer %s is refused: %w", l, why)
}

// open decompresses a layer by what it begins with: what a manifest calls it
// is not always true.
func open(f *os.File) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(f, 1<<20)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := Unzstd(b)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// maxWindow is how far back a zstd layer may refer: it takes that much memory.
const maxWindow = 32 << 20

// widest is a frame of nothing that may refer as far back as any: its window is
// 2^(10+15) bytes, and its one block, the last, is raw and empty.
const widest = "\x28\xb5\x2f\xfd\x00\x78\x01\x00\x00"

// Unzstd decompresses what anybody may have made, in little more memory than the
// window takes. The decoder makes room for a whole one first: of frames each of
// which has a larger window than the one before it would make it anew for each,
// three times as much in all.
func Unzstd(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(io.MultiReader(strings.NewReader(widest), r),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true))
}
