package kernel

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/artifact"
)

// ImportRequest says what to import under which name.
type ImportRequest struct {
	Name string
	// Dir is a directory that holds a kernel and its modules: an unpacked
	// package, or any with vmlinuz* or vmlinux in it or in its boot/, and
	// lib/modules/RELEASE, modules/RELEASE or RELEASE.
	Dir string
	// Vmlinuz and Modules name them one by one: a bzImage or an ELF kernel,
	// and the directory of its release or one that holds it.
	Vmlinuz string
	Modules string
	Distro  string // for people, as in "debian"
	Arch    string // default amd64
	Source  string // for people; default the path
	// Fresh refuses a name that stands for another kernel.
	Fresh bool
}

// ourArch is the only architecture whose kernels are booted.
const ourArch = "amd64"

// Import copies a kernel into the store and points Name at it, in place of
// what Name stood for. Nothing is left after a failure.
func (s *Store) Import(ctx context.Context, req ImportRequest) (banger.Kernel, error) {
	if err := req.Check(); err != nil {
		return banger.Kernel{}, err
	}
	unlock, err := artifact.Lock(ctx, s.lockPath(req.Name))
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	return s.importLocked(ctx, req)
}

// importLocked is Import while the lock of the name is held.
func (s *Store) importLocked(ctx context.Context, req ImportRequest) (banger.Kernel, error) {
	if err := req.complete(); err != nil {
		return banger.Kernel{}, err
	}
	tmp, err := s.buildDir(req.Name)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	k, err := build(ctx, req, tmp)
	if err != nil {
		return banger.Kernel{}, err
	}
	unlock, err := s.lockNames(ctx)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	if old, err := s.resolve(req.Name); req.Fresh && err == nil && old != k.Digest {
		return banger.Kernel{}, banger.Errorf(banger.AlreadyExists, "cannot import the kernel %s: there is another kernel of that name", req.Name).
			Hint("banger kernel delete %s", req.Name)
	}
	if err := s.publish(ctx, tmp, k.Digest); err != nil {
		return banger.Kernel{}, err
	}
	if err := s.point(req.Name, k.Digest); err != nil {
		return banger.Kernel{}, err
	}
	return s.load(k.Digest, req.Name)
}

// publish gives an entry its place, also that of one whose files are not what they
// were. VMs that run have what they read of it.
func (s *Store) publish(ctx context.Context, built, digest string) error {
	old, err := s.load(digest, "")
	if banger.CodeOf(err) == banger.NotFound {
		return artifact.Publish(built, s.entryDir(digest))
	}
	if err == nil {
		err = Verify(ctx, old)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return artifact.Replace(built, s.entryDir(digest))
	}
	return artifact.Publish(built, s.entryDir(digest))
}

// buildDir makes an empty directory for what becomes name. The caller holds
// the name's lock, so whatever lies there is left from a crash.
func (s *Store) buildDir(name string) (string, error) {
	dir := filepath.Join(s.dir, "building", name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// BuiltIn is a hint for who has a kernel and no modules.
const BuiltIn = "where everything is built in there is a DIR too, which says so: make modules_install INSTALL_MOD_PATH=/tmp/k, and --modules /tmp/k/lib/modules"

// Check refuses a request that names too little or too much to import.
func (r *ImportRequest) Check() error {
	if err := banger.ValidateKernelName(r.Name); err != nil {
		return err
	}
	if (r.Dir == "") == (r.Vmlinuz == "" || r.Modules == "") {
		return banger.Errorf(banger.BadRequest, "cannot import the kernel %s: name either a directory or a kernel and its modules", r.Name).
			Hint("banger kernel import %s --from DIR", r.Name).
			Hint("banger kernel import %s --vmlinuz PATH --modules DIR", r.Name).
			Hint(BuiltIn)
	}
	if r.Arch != "" && r.Arch != ourArch {
		return banger.Errorf(banger.BadRequest, "cannot import the kernel %s for %s: banger runs %s only", r.Name, r.Arch, ourArch)
	}
	return nil
}

// complete finds kernel and modules in Dir and fills in the defaults.
func (r *ImportRequest) complete() error {
	if r.Dir != "" {
		if err := r.findInDir(); err != nil {
			return err
		}
	}
	if r.Source == "" {
		r.Source = r.Vmlinuz
	}
	r.Arch = ourArch
	return nil
}

func (r *ImportRequest) findInDir() error {
	var found []string
	for _, pattern := range []string{"boot/vmlinuz*", "vmlinuz*", "boot/vmlinux*", "vmlinux*"} {
		if found, _ = filepath.Glob(filepath.Join(globQuoted(r.Dir), pattern)); len(found) > 0 {
			break
		}
	}
	switch len(found) {
	case 0:
		return banger.Errorf(banger.BadRequest, "cannot import the kernel %s: %s holds no vmlinuz or vmlinux, nor does its boot directory", r.Name, r.Dir)
	case 1:
	default:
		return banger.Errorf(banger.BadRequest, "cannot import the kernel %s: %s holds several: %s", r.Name, r.Dir, strings.Join(found, ", ")).
			Hint("name one with --vmlinuz and --modules")
	}
	r.Vmlinuz = found[0]
	r.Modules = r.Dir
	for _, sub := range []string{"usr/lib/modules", "lib/modules", "modules"} {
		if info, err := os.Stat(filepath.Join(r.Dir, sub)); err == nil && info.IsDir() {
			r.Modules = filepath.Join(r.Dir, sub)
		}
	}
	return nil
}

var globSpecial = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func globQuoted(path string) string { return globSpecial.Replace(path) }

// build makes the entry in dir and gives its record, digest included.
func build(ctx context.Context, req ImportRequest, dir string) (banger.Kernel, error) {
	k := banger.Kernel{
		Name: req.Name, Distro: req.Distro, Arch: req.Arch, Source: req.Source,
		ImportedAt: time.Now().UTC().Truncate(time.Second),
	}
	var err error
	if k.Release, err = writeKernel(ctx, req.Vmlinuz, dir); err != nil {
		return k, err
	}
	modules, err := releaseDir(req.Modules, k.Release)
	if err != nil {
		return k, err
	}
	tree, err := scanModules(ctx, modules, k.Release, dir)
	if err != nil {
		return k, err
	}
	if err := writeEarly(ctx, modules, tree, filepath.Join(dir, earlyDir)); err != nil {
		return k, err
	}
	if err := writeModulesDisk(ctx, modules, k.Release, tree, filepath.Join(dir, modulesFile)); err != nil {
		return k, err
	}
	err = seal(ctx, &k, dir)
	return k, err
}

// releaseDir finds the directory of a release: dir itself or one in it.
func releaseDir(dir, release string) (string, error) {
	if isDir(filepath.Join(dir, release)) {
		return filepath.Join(dir, release), nil
	}
	if isDir(filepath.Join(dir, "kernel")) {
		return dir, nil
	}
	return "", banger.Errorf(banger.BadRequest, "cannot find the modules of %s: %s holds neither %s nor kernel", release, dir, release)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
