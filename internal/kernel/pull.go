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
func (s *Store) Available() []banger.Kernel {
	all := []banger.Kernel{{
		Name: banger.DefaultKernel, Distro: "debian", Arch: "amd64",
		Source: "the host's package sources (" + debianPackage + ")",
	}}
	if req, err := s.hostRequest(); err == nil {
		all = append(all, banger.Kernel{Name: HostKernel, Arch: "amd64", Source: req.Source})
	}
	return all
}

// Pull gets the kernel of that name from where Available says. One that is
// there is left alone unless force is set; what callers at the same time ask
// for is done once. access has the proxies of who asks. progress, which may be nil,
// is told of each stage.
func (s *Store) Pull(ctx context.Context, name string, force bool, access banger.Access, progress func(stage string)) (banger.Kernel, error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := banger.ValidateKernelName(name); err != nil {
		return banger.Kernel{}, err
	}
	if !inCatalogue(name) {
		return banger.Kernel{}, banger.Errorf(banger.NotFound, "cannot pull the kernel %s: nothing of that name is available", name).
			Hint("banger kernel list --available").
			Hint("banger kernel pull REGISTRY/%s:TAG", name).
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
	var k banger.Kernel
	if name == HostKernel {
		k, err = s.pullHost(ctx, progress)
	} else {
		k, err = s.pullDebian(ctx, name, access.Proxies(), progress)
	}
	return k, banger.Wrap(err, "cannot pull the kernel %s", name)
}

func inCatalogue(name string) bool { return name == banger.DefaultKernel || name == HostKernel }

func (s *Store) pullDebian(ctx context.Context, name string, proxies []string, progress func(string)) (banger.Kernel, error) {
	scratch, err := artifact.NewScratch(s.downloads, "kernel")
	if err != nil {
		return banger.Kernel{}, err
	}
	defer scratch.Close()
	tmp := scratch.Dir
	deb, pkg, err := s.downloadDebian(ctx, tmp, proxies, progress)
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
func (s *Store) downloadDebian(ctx context.Context, tmp string, proxies []string, progress func(string)) (string, apt.Package, error) {
	client, err := apt.Open(tmp, proxies)
	if err != nil {
		return "", apt.Package{}, elsewhere(err)
	}
	deb, pkg, err := s.tryDownload(ctx, client, progress)
	if err == nil || ctx.Err() != nil {
		return deb, pkg, err
	}
	progress("fetching package lists")
	if err := client.Update(ctx); err != nil {
		return "", pkg, err
	}
	deb, pkg, err = s.tryDownload(ctx, client, progress)
	if banger.CodeOf(err) == banger.NotFound {
		err = elsewhere(err) // apt of another system
	}
	return deb, pkg, err
}

// elsewhere says what a host can boot whose package sources do not have Debian's
// kernel.
func elsewhere(err error) error {
	return banger.Errorf(banger.Unavailable, "this host cannot get %s: %w", debianPackage, err).
		Hint("banger kernel pull %s, and default_kernel = %q in the configuration", HostKernel, HostKernel)
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
