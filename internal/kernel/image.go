package kernel

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"
	"banger/internal/oci"
)

// An image that carries a kernel has two files at its top, as those of linuxkit
// have.
const (
	imageKernel  = "kernel"     // a bzImage
	imageModules = "kernel.tar" // lib/modules/RELEASE
)

// What such an image may hold.
const (
	maxLayers   = 64
	maxSent     = 4 << 30  // bytes of all layers as they are sent
	maxUnpacked = 16 << 30 // bytes of all layers, with what is not looked at
)

// PullImage gets the kernel that an image of a registry carries, and calls it name,
// or as the image is called.
func (s *Store) PullImage(ctx context.Context, ref oci.Ref, name string, access banger.Access, cache oci.Cache, force bool, progress func(stage string)) (banger.Kernel, error) {
	name = cmp.Or(name, ref.ImageName())
	if err := checkPulledName(ref, name); err != nil {
		return banger.Kernel{}, err
	}
	unlock, err := artifact.Lock(ctx, s.lockPath(name))
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	if old, err := s.Get(name); err == nil && !force {
		if strings.HasPrefix(old.Source, ref.String()+"@") {
			return old, nil
		}
		return old, banger.Errorf(banger.AlreadyExists, "cannot pull the kernel %s: there is another kernel named %s (%s)", ref, name, old.Source).
			Hint("banger kernel pull %s --name OTHER", ref).Hint("banger kernel pull %s --name %s --force", ref, name)
	}
	k, err := s.pullImage(ctx, name, ref, access, cache, progress)
	return k, banger.Wrap(err, "cannot pull the kernel %s", ref)
}

// checkPulledName refuses a name that a registry's kernel cannot have. Those of the
// catalogue mean what they say: VMs boot them where nothing else is asked for.
func checkPulledName(ref oci.Ref, name string) error {
	if !inCatalogue(name) {
		return banger.ValidateKernelName(name)
	}
	whose := "the one of the host's package sources"
	if name == HostKernel {
		whose = "the kernel of this host"
	}
	return banger.Errorf(banger.BadRequest, "cannot pull the kernel %s as %s: that is the name of %s", ref, name, whose).
		Hint("banger kernel pull %s --name OTHER", ref)
}

func (s *Store) pullImage(ctx context.Context, name string, ref oci.Ref, access banger.Access, cache oci.Cache, progress func(string)) (banger.Kernel, error) {
	progress("ask " + ref.Context().RegistryStr() + " for " + ref.String())
	found, err := oci.Find(ctx, ref, access, cache)
	if err != nil {
		return banger.Kernel{}, err
	}
	if err := checkSize(found); err != nil {
		return banger.Kernel{}, err
	}
	scratch, err := artifact.NewScratch(s.downloads, "kernel")
	if err != nil {
		return banger.Kernel{}, err
	}
	defer scratch.Close()
	tmp := scratch.Dir
	left := int64(maxUnpacked)
	for i, l := range found.Layers {
		progress(fmt.Sprintf("fetch layer %d of %d, %s", i+1, len(found.Layers), l))
		if err := found.Fetch(ctx, cache, l); err != nil {
			return banger.Kernel{}, err
		}
		err := found.Unpack(ctx, cache, l, func(r io.Reader) error {
			return takeKernel(&atMost{artifact.Reader(ctx, r), &left}, tmp)
		})
		if err != nil {
			return banger.Kernel{}, err
		}
	}
	progress("import the kernel")
	modules := filepath.Join(tmp, "root")
	if err := unpackModules(ctx, filepath.Join(tmp, imageModules), modules, maxModules); err != nil {
		return banger.Kernel{}, err
	}
	return s.importLocked(ctx, ImportRequest{
		Name: name, Vmlinuz: filepath.Join(tmp, imageKernel), Modules: filepath.Join(modules, "lib/modules"),
		Distro: "oci", Source: strings.TrimSuffix(ref.String(), "@"+found.Digest) + "@" + found.Digest,
	})
}

// checkSize refuses an image that is larger than one of a kernel is, before any of it
// is fetched.
func checkSize(i *oci.Image) error {
	if len(i.Layers) > maxLayers || i.Size() > maxSent {
		return banger.Errorf(banger.BadRequest, "it has %d layers of %d bytes, of at most %d of %d", len(i.Layers), i.Size(), maxLayers, int64(maxSent))
	}
	return nil
}

// atMost reads as long as some is left of what several may read.
type atMost struct {
	io.Reader
	left *int64
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if *a.left -= int64(n); *a.left < 0 {
		return 0, banger.Errorf(banger.BadRequest, "its layers unpack to more than %d bytes", int64(maxUnpacked))
	}
	return n, err
}

// takeKernel copies the two files of a layer into dir, over those of the layers
// below. All else of the image is of no use.
func takeKernel(r io.Reader, dir string) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // whose sum is wanted
			return err
		}
		if err != nil {
			return err
		}
		most := map[string]int64{imageKernel: maxVmlinux, imageModules: maxModulesTar}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		if gone, ok := strings.CutPrefix(name, ".wh."); ok && most[gone] > 0 {
			if err := os.Remove(filepath.Join(dir, gone)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if most[name] == 0 {
			continue
		}
		if h.Typeflag != tar.TypeReg || h.Size > most[name] {
			return banger.Errorf(banger.BadRequest, "its /%s is no plain file of at most %d bytes", name, most[name])
		}
		if err := writeAll(filepath.Join(dir, name), in); err != nil {
			return err
		}
	}
}

func writeAll(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
