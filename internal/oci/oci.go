// Package oci gets images from registries: it finds a reference's manifest,
// and keeps layers by digest in a cache, whole and checked or not at all.
//
// It knows nothing of what layers hold or of what becomes of them.
package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger"
)

// What an image may have. Its layers' contents are bounded by who unpacks them.
const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	maxLayers   = 500
	maxLayer    = 32 << 30 // compressed
)

// Ref is a reference to an image of a registry.
type Ref struct{ name.Reference }

// Parse reads a reference as docker does: without a registry it is Docker
// Hub's, without a tag it is latest.
func Parse(ref string) (Ref, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return Ref{}, banger.Errorf(banger.BadRequest, "%q is no reference to an image: %w", ref, err)
	}
	return Ref{r}, nil
}

// String is the whole reference, registry and tag included.
func (r Ref) String() string { return strings.TrimPrefix(r.Name(), "index.") }

// ImageName is what an image of it is called where nothing else is said: the
// last part of the repository, with the tag unless that is latest.
func (r Ref) ImageName() string {
	repo := r.Context().RepositoryStr()
	short := repo[strings.LastIndexByte(repo, '/')+1:]
	switch id := r.Identifier(); {
	case id == name.DefaultTag:
		return short
	case strings.Contains(id, ":"): // a digest
		_, hex, _ := strings.Cut(id, ":")
		return short + "-" + hex[:12]
	default:
		return short + "-" + id
	}
}

// Image is an image of a registry that was found there, all of it by digest:
// whatever becomes of the tag meanwhile, it stays the same one.
type Image struct {
	Ref    Ref
	Digest string // of its manifest, sha256:HEX
	Config v1.Config
	Layers []Layer // the lowest first

	from source
}

// Layer is a part of an image.
type Layer struct {
	Digest v1.Hash // of what is sent
	DiffID v1.Hash // of what it unpacks to
	Size   int64   // of what is sent
}

// Find asks the registry what ref is, and fetches what is small of it.
func Find(ctx context.Context, ref Ref, access banger.Access, cache Cache) (*Image, error) {
	img, err := find(ctx, ref, access, cache)
	return img, banger.Wrap(explain(ctx, err, ref), "cannot find %s", ref)
}

func find(ctx context.Context, ref Ref, access banger.Access, cache Cache) (*Image, error) {
	from, err := dial(ctx, ref, access)
	if err != nil {
		return nil, err
	}
	// The inner one: what is asked for by digest is checked by its type.
	found, err := remote.Get(ref.Reference, remote.WithContext(ctx), remote.WithTransport(from.transport), remote.WithPlatform(platform))
	if err != nil {
		return nil, err
	}
	chosen, err := found.Image()
	if err != nil {
		return nil, err
	}
	digest, err := chosen.Digest()
	if err != nil {
		return nil, err
	}
	m, err := chosen.Manifest()
	if err != nil {
		return nil, err
	}
	if err := checkManifest(m); err != nil {
		return nil, err
	}
	raw, err := cache.small(ctx, from, m.Config)
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: ref, Digest: digest.String(), from: from}
	return img, img.configure(m, raw)
}

var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

func checkManifest(m *v1.Manifest) error {
	if len(m.Layers) > maxLayers {
		return banger.Errorf(banger.BadRequest, "it has %d layers, of at most %d", len(m.Layers), maxLayers)
	}
	if m.Config.Size < 0 || m.Config.Size > maxConfig {
		return banger.Errorf(banger.BadRequest, "its configuration has %d bytes, of at most %d", m.Config.Size, maxConfig)
	}
	for n, l := range m.Layers {
		if err := checkDigest(l.Digest); err != nil {
			return banger.Errorf(banger.BadRequest, "its layer %d %w", n+1, err)
		}
		if l.Size < 0 || l.Size > maxLayer {
			return banger.Errorf(banger.BadRequest, "its layer %s has %d bytes, of at most %d", l.Digest, l.Size, int64(maxLayer))
		}
	}
	return nil
}

// checkDigest refuses a digest that names nothing: JSON may leave it out.
func checkDigest(d v1.Hash) error {
	if d.Algorithm != "sha256" || len(d.Hex) != hex.EncodedLen(sha256.Size) {
		return fmt.Errorf("has the digest %q, which is no sha256", d)
	}
	return nil
}

// configure takes what the image's configuration says.
func (i *Image) configure(m *v1.Manifest, raw []byte) error {
	var c v1.ConfigFile
	if err := json.Unmarshal(raw, &c); err != nil || !m.Config.MediaType.IsConfig() {
		return banger.Errorf(banger.BadRequest, "it is no image to run but %s", m.Config.MediaType)
	}
	if c.OS != platform.OS || c.Architecture != platform.Architecture {
		return banger.Errorf(banger.BadRequest, "it is made for %s/%s, and banger runs %s", c.OS, c.Architecture, platform)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return banger.Errorf(banger.BadRequest, "its configuration names %d layers and its manifest %d", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	i.Config = c.Config
	for n, l := range m.Layers {
		if err := checkDigest(c.RootFS.DiffIDs[n]); err != nil {
			return banger.Errorf(banger.BadRequest, "its layer %d %w", n+1, err)
		}
		i.Layers = append(i.Layers, Layer{Digest: l.Digest, DiffID: c.RootFS.DiffIDs[n], Size: l.Size})
	}
	return nil
}

// Size is what all layers take to be sent.
func (i *Image) Size() int64 {
	var sum int64
	for _, l := range i.Layers {
		sum += l.Size
	}
	return sum
}

// String names a layer for people.
func (l Layer) String() string {
	return fmt.Sprintf("%s (%s)", l.Digest.Hex[:12], banger.ApproxSize(l.Size))
}
