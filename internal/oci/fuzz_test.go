package oci

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What a registry says of an image is refused, or names layers that are within
// bounds and lie where layers lie.
func FuzzManifests(f *testing.F) {
	layer := noise(f, 1000)
	digest, _ := layer.Digest()
	diff, _ := layer.DiffID()
	config, _ := json.Marshal(v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}}})
	manifest, _ := json.Marshal(v1.Manifest{
		SchemaVersion: 2, Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: diff},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: 1000, Digest: digest}},
	})
	f.Add(manifest, config)
	for _, change := range [][2]string{
		{`"` + digest.String() + `"`, `"sha256:../../../etc/passwd"`}, {`"digest":`, `"digests":`}, {`"size":1000`, `"size":-1`},
		{`"size":1000`, `"size":99999999999999`}, {`"layers":[`, `"layers":[{},`}, {`sha256:`, `sha512:`}, {`sha256:`, `:`},
	} {
		f.Add(bytes.ReplaceAll(manifest, []byte(change[0]), []byte(change[1])), bytes.ReplaceAll(config, []byte(change[0]), []byte(change[1])))
	}
	cache := Cache{Dir: f.TempDir()}
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		m, err := v1.ParseManifest(bytes.NewReader(manifest))
		if err != nil || checkManifest(m) != nil {
			return
		}
		img := &Image{}
		if img.configure(m, config) != nil {
			return
		}
		if len(img.Layers) > maxLayers || img.Size() < 0 {
			t.Errorf("%d layers of %d bytes", len(img.Layers), img.Size())
		}
		for _, l := range img.Layers {
			dir := filepath.Dir(cache.path(l.Digest))
			if inside, err := filepath.Rel(cache.Dir, dir); err != nil || !filepath.IsLocal(inside) {
				t.Errorf("the layer %s lies in %s", l, dir)
			}
			if len(l.Digest.Hex) != 64 || len(l.DiffID.Hex) != 64 {
				t.Errorf("the layer %+v cannot be proved", l)
			}
		}
	})
}
