package oci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
)

// Cache is a directory of blobs by digest. One that is on its way has a name
// with a suffix, and is gone on with by whoever wants it next. Several
// processes may use one, and anybody may remove it at any time.
type Cache struct{ Dir string }

const partial = ".partial"

func (c Cache) path(d v1.Hash) string { return filepath.Join(c.Dir, "sha256", d.Hex) }

// small gives the content of a short blob.
func (c Cache) small(ctx context.Context, from source, d v1.Descriptor) ([]byte, error) {
	path, err := c.fetch(ctx, from, d.Digest, d.Size)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || info.Size() != d.Size { // it may be a layer that is here already
		return nil, cmp.Or(err, error(banger.Errorf(banger.BadRequest, "the blob %s has other than the %d bytes it was said to have", d.Digest, d.Size)))
	}
	b, err := os.ReadFile(path)
	if sum := sha256.Sum256(b); err == nil && hex.EncodeToString(sum[:]) != d.Digest.Hex {
		os.Remove(path)
		err = banger.Errorf(banger.Conflict, "the cached %s was damaged, and is removed", path).Hint("try again")
	}
	return b, err
}

// attempts is how often a transfer that breaks off is gone on with.
const attempts = 4

// fetch makes sure that a blob is in the cache, whole and checked.
func (c Cache) fetch(ctx context.Context, from source, d v1.Hash, size int64) (string, error) {
	if d.Algorithm != "sha256" {
		return "", banger.Errorf(banger.BadRequest, "the blob %s has a digest of the unknown kind %s", d, d.Algorithm)
	}
	p, err := c.open(ctx, d)
	if err != nil || p == nil {
		return c.path(d), err
	}
	defer p.close()
	var furthest int64 // what a registry that begins anew each time has to pass
	for try := 1; ; try++ {
		err := p.goOn(ctx, from, d, size)
		if err == nil {
			return c.path(d), p.complete(d, size)
		}
		if p.have > furthest {
			furthest, try = p.have, 0
		}
		if ctx.Err() != nil || !resumable(err) || try >= attempts {
			return "", err
		}
	}
}

// part is a blob on its way. Its file is locked: of those who want it one
// fetches it.
type part struct {
	f    *os.File
	sum  hash.Hash
	have int64 // bytes in the file that sum has seen
}

// open gives the part of a blob, nil where the blob is there.
func (c Cache) open(ctx context.Context, d v1.Hash) (*part, error) {
	final := c.path(d)
	for {
		if _, err := os.Stat(final); err == nil {
			return nil, nil
		}
		f, err := artifact.LockFile(ctx, final+partial)
		if err != nil {
			return nil, err
		}
		// Meanwhile it may have been finished, and the file be a new one.
		if _, err := os.Stat(final); err == nil {
			_ = os.Remove(final + partial)
			artifact.Unlock(f)
			return nil, nil
		}
		// While we waited it may have been removed.
		if is, err := f.Stat(); err == nil {
			if named, err := os.Stat(final + partial); err == nil && os.SameFile(is, named) {
				p := &part{f: f, sum: sha256.New()}
				return p, p.read(ctx)
			}
		}
		artifact.Unlock(f)
	}
}

// read takes up what an earlier transfer left.
func (p *part) read(ctx context.Context) (err error) {
	if p.have, err = io.Copy(p.sum, artifact.Reader(ctx, p.f)); err != nil {
		p.close()
	}
	return err
}

func (p *part) close() { artifact.Unlock(p.f) }

func (p *part) restart() error {
	p.sum.Reset()
	p.have = 0
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return p.f.Truncate(0)
}

// goOn fetches what is missing, as far as it gets.
func (p *part) goOn(ctx context.Context, from source, d v1.Hash, size int64) error {
	if p.have > size || p.have == size && p.digest() != d.Hex {
		if err := p.restart(); err != nil { // not what we left there
			return err
		}
	}
	if p.have == size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := from.blob(ctx, d.String(), p.have, size)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && begins(resp, p.have):
	case resp.StatusCode == http.StatusOK:
		if err := p.restart(); err != nil {
			return err
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.have > 0:
		return errors.Join(&broken{errors.New("the registry has no part of a blob to send")}, p.restart())
	case resp.StatusCode == http.StatusNotFound:
		return banger.Errorf(banger.NotFound, "the registry no longer has the blob %s of it", d)
	default:
		return banger.Errorf(banger.Unavailable, "the registry answers %s for the blob %s", resp.Status, d)
	}
	quiet := newWatchdog(silence, func() { cancel(fmt.Errorf("the registry sent nothing for %s", silence)) })
	defer quiet.stop()
	return p.receive(ctx, quiet.reader(resp.Body), d, size)
}

// begins says whether a part of a blob begins where it was asked to.
func begins(resp *http.Response, at int64) bool {
	var first int64
	_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first)
	return err == nil && first == at
}

func (p *part) receive(ctx context.Context, body io.Reader, d v1.Hash, size int64) error {
	to := io.MultiWriter(p.f, p.sum)
	n, err := io.CopyBuffer(to, io.LimitReader(body, size+1-p.have), make([]byte, 256<<10))
	p.have += n
	switch {
	case errors.Is(err, unix.ENOSPC):
		return banger.Errorf(banger.NoSpace, "there is no space left for the blob %s: %w", d, err)
	case err != nil:
		return &broken{cmp.Or(context.Cause(ctx), err)}
	case p.have > size:
		return errors.Join(banger.Errorf(banger.BadRequest, "the blob %s has more than the %d bytes it was said to have", d, size), p.restart())
	case p.have < size:
		return &broken{fmt.Errorf("the blob %s ends after %d of %d bytes: %w", d, p.have, size, io.ErrUnexpectedEOF)}
	}
	return nil
}

// broken is a transfer that may be gone on with.
type broken struct{ error }

func (b *broken) Unwrap() error { return b.error }

func resumable(err error) bool {
	var b *broken
	return errors.As(err, &b)
}

func (p *part) digest() string { return hex.EncodeToString(p.sum.Sum(nil)) }

// complete gives a whole blob its name, if it is what it should be.
func (p *part) complete(d v1.Hash, size int64) error {
	if got := p.digest(); got != d.Hex {
		return errors.Join(banger.Errorf(banger.BadRequest, "the blob %s was sent with the digest sha256:%s", d, got), p.restart())
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	return artifact.Rename(p.f.Name(), p.f.Name()[:len(p.f.Name())-len(partial)])
}

// Prune removes the blobs that keep does not want, and those on their way that
// nobody fetches; dry only counts.
func (c Cache) Prune(keep func(digest string) bool, dry bool) (blobs int, bytes int64, err error) {
	entries, err := os.ReadDir(filepath.Join(c.Dir, "sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	for _, e := range entries {
		info, statErr := e.Info()
		if statErr != nil || keep("sha256:"+e.Name()) {
			continue
		}
		if !dry {
			removed, removeErr := removeUnlocked(filepath.Join(c.Dir, "sha256", e.Name()))
			err = errors.Join(err, removeErr)
			if !removed {
				continue
			}
		}
		blobs, bytes = blobs+1, bytes+info.Size()
	}
	return blobs, bytes, err
}

// removeUnlocked removes a file unless somebody is at it.
func removeUnlocked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it became whole, under another name
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil
	}
	err = os.Remove(path)
	return err == nil, err
}
