// Package kernel keeps the kernels VMs boot: it imports them from files, from
// the host's Debian packages or from images of registries, unpacks what a VMM needs, computes the
// order modules load in, and makes banger's initramfs.
//
// It knows nothing of VMs, so it cannot tell whether a kernel is in use, and
// takes the guest agent as bytes.
package kernel

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/artifact"
)

// Names inside an entry.
const (
	vmlinuzFile = "vmlinuz"
	vmlinuxFile = "vmlinux"
	modulesFile = "modules.ext4"
	recordFile  = "kernel.json"
	earlyDir    = "early"
)

// Store is a directory of kernels. Entries lie by content and are never
// changed; a name is a relative link to one:
//
//	by-digest/<sha256>/{vmlinuz,vmlinux,modules.ext4,early/,kernel.json}
//	names/<name> → ../by-digest/<sha256>
//	building/, locks/
//
// Several processes may use one.
type Store struct {
	dir       string
	downloads string
	host      string // where the host's own kernel is: its root directory
}

// NewStore is the store in dir; packages on their way into it are cached in
// downloads. Neither needs to exist.
func NewStore(dir, downloads string) *Store {
	return &Store{dir: dir, downloads: downloads, host: "/"}
}

func (s *Store) entryDir(digest string) string { return filepath.Join(s.dir, "by-digest", digest) }
func (s *Store) namePath(name string) string   { return filepath.Join(s.dir, "names", name) }
func (s *Store) lockPath(name string) string   { return filepath.Join(s.dir, "locks", name) }

// lockNames serialises what changes names and removes entries. It is held
// for moments only.
func (s *Store) lockNames(ctx context.Context) (func(), error) {
	return artifact.Lock(ctx, filepath.Join(s.dir, "lock"))
}

// List gives every named kernel by name, then the entries no name points at
// any more (VMs may still boot them) with an empty name. A name whose entry is gone is
// left out: one that somebody removes meanwhile, or that Remove takes away. One whose
// record cannot be read has no more than its name and digest.
func (s *Store) List() ([]banger.Kernel, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var kernels []banger.Kernel
	named := map[string]bool{}
	for name, digest := range names {
		named[digest] = true
		k, err := s.load(digest, name)
		if banger.CodeOf(err) == banger.NotFound {
			continue
		}
		if err != nil && !isDamaged(err) {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	digests, err := readDirNames(filepath.Join(s.dir, "by-digest"))
	if err != nil {
		return nil, err
	}
	for _, digest := range digests {
		if named[digest] {
			continue
		}
		k, err := s.load(digest, "")
		if banger.CodeOf(err) == banger.NotFound {
			continue
		}
		if err != nil && !isDamaged(err) {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	slices.SortFunc(kernels, func(a, b banger.Kernel) int {
		return cmp.Or(compareNames(a.Name, b.Name), cmp.Compare(a.Digest, b.Digest))
	})
	return kernels, nil
}

// compareNames sorts by name, with the nameless last.
func compareNames(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// Get finds a kernel by name or by the digest of its entry.
func (s *Store) Get(ref string) (banger.Kernel, error) {
	if isDigest(ref) {
		return s.load(ref, "")
	}
	if err := banger.ValidateKernelName(ref); err != nil {
		return banger.Kernel{}, err
	}
	digest, err := s.resolve(ref)
	if err != nil {
		return banger.Kernel{}, err
	}
	return s.load(digest, ref)
}

// Remove takes a name away, and the entry with its last name. A digest
// removes the entry and every name of it. Whether anything uses the kernel is
// for the caller to know.
func (s *Store) Remove(ref string) error {
	unlock, err := s.lockNames(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.Get(ref)
	if banger.CodeOf(err) == banger.NotFound && s.removeDangling(ref) {
		return nil
	}
	if err != nil && !isDamaged(err) {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	left := 0
	for name, digest := range names {
		switch {
		case digest != k.Digest:
		case name == ref || ref == k.Digest:
			if err := os.Remove(s.namePath(name)); err != nil {
				return err
			}
		default:
			left++
		}
	}
	if left > 0 {
		return nil
	}
	return s.removeEntry(k.Digest)
}

// removeDangling takes away a name whose entry is gone, if it is one.
func (s *Store) removeDangling(ref string) bool {
	return banger.ValidateKernelName(ref) == nil && os.Remove(s.namePath(ref)) == nil
}

// removeEntry moves the entry out of sight first, so that nobody finds half
// of it.
func (s *Store) removeEntry(digest string) error {
	doomed := filepath.Join(s.dir, "building", "removed-"+digest)
	if err := os.MkdirAll(filepath.Dir(doomed), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(doomed); err != nil {
		return err
	}
	if err := os.Rename(s.entryDir(digest), doomed); err != nil {
		return err
	}
	return os.RemoveAll(doomed)
}

// point makes name stand for the entry, replacing what it stood for.
func (s *Store) point(name, digest string) error {
	path := s.namePath(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "-"+name) // no kernel's name begins with a hyphen
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join("..", "by-digest", digest), tmp); err != nil {
		return err
	}
	return artifact.Rename(tmp, path)
}

func (s *Store) resolve(name string) (digest string, err error) {
	target, err := os.Readlink(s.namePath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", notFound(name)
	}
	if err != nil {
		return "", err
	}
	return filepath.Base(target), nil
}

func notFound(name string) error {
	err := banger.Errorf(banger.NotFound, "there is no kernel %s", name)
	if name == banger.DefaultKernel {
		return err.Hint("banger kernel pull %s", name)
	}
	return err.Hint("banger kernel list")
}

// names maps every name to the digest it points at.
func (s *Store) names() (map[string]string, error) {
	list, err := readDirNames(filepath.Join(s.dir, "names"))
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, name := range list {
		if banger.ValidateKernelName(name) != nil {
			continue // a link on its way
		}
		digest, err := s.resolve(name)
		if banger.CodeOf(err) == banger.NotFound {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		names[name] = digest
	}
	return names, nil
}

// load reads an entry. Of a damaged one it gives what is known all the same.
func (s *Store) load(digest, name string) (banger.Kernel, error) {
	k, err := loadEntry(s.entryDir(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return k, notFound(cmp.Or(name, banger.ShortID(digest)))
	}
	k.Name = name
	if isDamaged(err) {
		return k, banger.Wrap(err, "the kernel %s is damaged", cmp.Or(name, banger.ShortID(digest)))
	}
	if err != nil {
		return k, fmt.Errorf("cannot read the kernel %s: %w", cmp.Or(name, digest), err)
	}
	return k, nil
}

func loadEntry(dir string) (banger.Kernel, error) {
	var k banger.Kernel
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return banger.Kernel{Digest: filepath.Base(dir), Dir: dir},
			banger.Errorf(banger.Conflict, "%s cannot be understood: %w", filepath.Join(dir, recordFile), err).
				Hint("banger doctor --verify says what can be done")
	}
	k.Digest = filepath.Base(dir)
	k.Dir = dir
	k.VmlinuzPath = filepath.Join(dir, vmlinuzFile)
	k.VmlinuxPath = filepath.Join(dir, vmlinuxFile)
	k.ModulesPath = filepath.Join(dir, modulesFile)
	if k.VmlinuzSHA256 == "" {
		k.VmlinuzPath = ""
	}
	return k, nil
}

// isDamaged says whether an entry is there whose record is no good.
func isDamaged(err error) bool { return banger.CodeOf(err) == banger.Conflict }

func isDigest(ref string) bool {
	return len(ref) == 64 && strings.Trim(ref, "0123456789abcdef") == ""
}

func readDirNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
