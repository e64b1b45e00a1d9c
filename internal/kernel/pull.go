package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/apt"
	"banger/internal/artifact"
)

// debianPackage is the package that always depends on Debian's newest kernel
// for virtual machines.
const debianPackage = "linux-image-cloud-amd64"

// Available names what Pull can get, with where from.
func Available() []banger.Kernel {
	return []banger.Kernel{{
		Name: banger.DefaultKernel, Distro: "debian", Arch: "amd64",
		Source: "the host's package sources (" + debianPackage + ")",
	}}
}

// Pull gets the kernel of that name from where Available says. One that is
// there is left alone unless force is set; what callers at the same time ask
// for is done once. progress, which may be nil, is told of each stage.
func (s *Store) Pull(ctx context.Context, name string, force bool, progress func(stage string)) (banger.Kernel, error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := banger.ValidateKernelName(name); err != nil {
		return banger.Kernel{}, err
	}
	if name != banger.DefaultKernel {
		return banger.Kernel{}, banger.Errorf(banger.NotFound, "cannot pull the kernel %s: nothing of that name is available", name).
			Hint("banger kernel list --available").
			Hint("banger kernel import %s --from DIR", name)
	}
	unlock, err := artifact.Lock(ctx, s.lockPath(name))
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	if !force {
		k, err := s.Get(name)
		if banger.CodeOf(err) != banger.NotFound {
			return k, err
		}
	}
	k, err := s.pullDebian(ctx, name, progress)
	return k, banger.Wrap(err, "cannot pull the kernel %s", name)
}

func (s *Store) pullDebian(ctx context.Context, name string, progress func(string)) (banger.Kernel, error) {
	if err := os.MkdirAll(s.downloads, 0o700); err != nil {
		return banger.Kernel{}, err
	}
	tmp, err := os.MkdirTemp(s.downloads, ".tmp-kernel-*")
	if err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	deb, pkg, err := s.downloadDebian(ctx, tmp, progress)
	if err != nil {
		return banger.Kernel{}, err
	}
	progress("unpacking " + pkg.Name)
	root := filepath.Join(tmp, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return banger.Kernel{}, err
	}
	if err := apt.Unpack(ctx, deb, root); err != nil {
		return banger.Kernel{}, err
	}
	progress("importing " + pkg.Name)
	return s.importLocked(ctx, ImportRequest{
		Name: name, Dir: root, Distro: "debian", Arch: "amd64",
		Source: fmt.Sprintf("%s %s", pkg.Name, pkg.Version),
	})
}

// downloadDebian tries the host's package lists first. They may be absent, or
// name a version that the mirror has replaced since: then it fetches its own.
func (s *Store) downloadDebian(ctx context.Context, tmp string, progress func(string)) (string, apt.Package, error) {
	client, err := apt.Open(tmp)
	if err != nil {
		return "", apt.Package{}, banger.Wrap(err, "%s", debianPackage)
	}
	deb, pkg, err := s.tryDownload(ctx, client, progress)
	if err == nil || ctx.Err() != nil {
		return deb, pkg, err
	}
	progress("fetching package lists")
	if err := client.Update(ctx); err != nil {
		return "", pkg, err
	}
	return s.tryDownload(ctx, client, progress)
}

func (s *Store) tryDownload(ctx context.Context, client *apt.Client, progress func(string)) (string, apt.Package, error) {
	progress("looking for " + debianPackage)
	meta, err := client.Candidate(ctx, debianPackage)
	if err != nil {
		return "", meta, err
	}
	name := ""
	for dep := range strings.SplitSeq(meta.Depends, ",") {
		if word := strings.Fields(dep); len(word) > 0 && strings.HasPrefix(word[0], "linux-image-") {
			name = word[0]
		}
	}
	if name == "" {
		return "", meta, banger.Errorf(banger.Unavailable, "the package %s depends on no kernel (%s)", debianPackage, meta.Depends)
	}
	pkg, err := client.Candidate(ctx, name)
	if err != nil {
		return "", pkg, err
	}
	progress("downloading " + pkg.Name)
	deb, err := client.Download(ctx, pkg, s.downloads)
	return deb, pkg, err
}
