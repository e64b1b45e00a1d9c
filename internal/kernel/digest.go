package kernel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"
)

// seal hashes the files of an entry, derives its digest from them and writes
// the record. Name, source and time are not part of the digest.
func seal(ctx context.Context, k *banger.Kernel, dir string) (err error) {
	k.Digest, err = digest(ctx, dir, func(rel, sum string, size int64) {
		switch rel {
		case vmlinuzFile:
			k.VmlinuzSHA256 = sum
		case vmlinuxFile:
			k.VmlinuxSHA256 = sum
		case modulesFile:
			k.ModulesSHA256 = sum
		}
		k.SizeBytes += size
	})
	if err != nil {
		return err
	}
	record, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordFile), append(record, '\n'), 0o644)
}

// Verify reads a whole kernel and compares it with the digest that names it. One
// that differs is banger.Conflict.
func Verify(ctx context.Context, k banger.Kernel) error {
	name := cmp.Or(k.Name, banger.ShortID(k.Digest))
	is, err := digest(ctx, k.Dir, func(string, string, int64) {})
	if err == nil {
		_, err = loadEntry(k.Dir) // which is no part of the digest
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return banger.Errorf(banger.Conflict, "the kernel %s is damaged: %w", name, err)
	case is != k.Digest:
		return banger.Errorf(banger.Conflict, "the kernel %s is damaged: what lies in %s has the digest %s", name, k.Dir, is)
	}
	return nil
}

// digest is the digest of what makes an entry: all its files but the record, and
// what is kept beside them.
func digest(ctx context.Context, dir string, each func(rel, sum string, size int64)) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == recordFile || strings.HasPrefix(rel, initramfsPrefix) || strings.HasPrefix(rel, ".") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum, err := artifact.SHA256(ctx, path)
		if err != nil {
			return err
		}
		each(rel, sum, info.Size())
		_, err = fmt.Fprintf(h, "%s  %s\n", sum, rel)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
