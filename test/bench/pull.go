package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
)

const (
	pullLayers = 5
	pullFiles  = 4000 // of each layer, of fileSize: 400 MB in all
)

// pull measures an image of 400 MB from a registry on this machine, beside
// decompressing the same files and writing them with tar2ext4, the memory that it
// takes the daemon, and what comes again with an image that shares most layers.
func (b *benchmark) pull() (err error) {
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var sent atomic.Int64
	server := httptest.NewServer(counted(registry.New(registry.Logger(log.New(io.Discard, "", 0))), &sent))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	last, err := serveImages(host, dir)
	if err != nil {
		return err
	}
	remove := func() error {
		return errors.Join(b.command("image", "delete", "pulled")(), b.command("image", "cache", "prune")())
	}
	most := 0.0
	fetch := func() error {
		if err := b.resetPeak(); err != nil {
			return err
		}
		if err := b.command("image", "pull", host+"/one:1", "--name", "pulled")(); err != nil {
			return err
		}
		peak, err := b.peak()
		most = max(most, peak)
		return err
	}
	const n = 3
	all, err := inTurn(n, fetch, remove, func() error { return plainImage(filepath.Join(dir, "all.tar.gz"), dir) })
	if err != nil {
		return err
	}
	r := medians("pull of 400 MB (floor: gunzip and tar2ext4)", 0, all[0], all[2])
	r.times = 1.3
	r.print()
	row{what: "memory of the daemon at most, that the pull takes", n: n, unit: mib, figure: most, most: 128}.print()
	if err := fetch(); err != nil {
		return err
	}
	before := sent.Load()
	if err := b.command("image", "pull", host+"/two:1", "--name", "second")(); err != nil {
		return err
	}
	row{what: "sent for an image with one other layer", n: 1, unit: mib, figure: float64(sent.Load()-before) / (1 << 20), floor: float64(last) / (1 << 20), times: 1.01}.print()
	return errors.Join(b.command("image", "delete", "second")(), remove())
}

// counted counts what a server sends.
func counted(h http.Handler, sent *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&counter{w, sent}, r) })
}

type counter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// serveImages puts two images that differ in the last layer into a registry, and
// the files of the first into dir/all.tar.gz. It gives the size of the second's
// last layer.
func serveImages(host, dir string) (last int64, err error) {
	var layers []v1.Layer
	var whole bytes.Buffer
	for i := range pullLayers + 1 {
		text := layerOf(i)
		if i < pullLayers {
			whole.Write(bytes.TrimRight(text, "\x00")) // of a whole archive only the end is one
			whole.Write(make([]byte, -whole.Len()&511))
		}
		packed, err := gzipped(text)
		if err != nil {
			return 0, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil })
		if err != nil {
			return 0, err
		}
		layers = append(layers, layer)
	}
	whole.Write(make([]byte, 1024))
	packed, err := gzipped(whole.Bytes())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "all.tar.gz"), packed, 0o600)
	}
	if err != nil {
		return 0, err
	}
	for repository, of := range map[string][]v1.Layer{
		"one": layers[:pullLayers], "two": append(append([]v1.Layer{}, layers[:pullLayers-1]...), layers[pullLayers]),
	} {
		if err := putImage(host+"/"+repository+":1", of); err != nil {
			return 0, err
		}
	}
	return layers[pullLayers].Size()
}

func putImage(ref string, layers []v1.Layer) error {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		return err
	}
	tag, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.Write(tag, img)
}

// layerOf is a tar of files of words.
func layerOf(i int) []byte {
	random := rand.New(rand.NewPCG(uint64(i), 3))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := range pullFiles {
		text := make([]byte, 0, fileSize+32)
		for len(text) < fileSize {
			text = strconv.AppendInt(append(text, "word "...), int64(random.IntN(1<<20)), 16)
			text = append(strconv.AppendInt(append(text, " and "...), int64(random.IntN(9999)), 10), '\n')
		}
		// A buffer takes everything.
		_ = w.WriteHeader(&tar.Header{Name: fmt.Sprintf("files/%d/%d/%d", i, n%40, n), Mode: 0o644, Size: int64(len(text))})
		_, _ = w.Write(text)
	}
	_ = w.Close()
	return b.Bytes()
}

func gzipped(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(text)
	err = errors.Join(err, z.Close())
	return b.Bytes(), err
}

// plainImage is the floor: the files decompressed into a tar, and an ext4 made
// of that.
func plainImage(packed, dir string) error {
	in, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	plain, err := os.Create(filepath.Join(dir, "all.tar"))
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := io.Copy(plain, z); err != nil {
		return err
	}
	if _, err := plain.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(dir, "all.ext4"))
	if err != nil {
		return err
	}
	return errors.Join(tar2ext4.ConvertTarToExt4(plain, out), out.Sync(), out.Close())
}

func (b *benchmark) daemon() (string, error) {
	var d struct {
		PID int `json:"pid"`
	}
	err := b.answer(&d, "daemon", "status", "--json")
	return "/proc/" + strconv.Itoa(d.PID), err
}

// resetPeak has the kernel measure the daemon's memory anew.
func (b *benchmark) resetPeak() error {
	dir, err := b.daemon()
	if err != nil {
		return err
	}
	return os.WriteFile(dir+"/clear_refs", []byte("5"), 0)
}

// peak is the daemon's memory at most since then, in MiB.
func (b *benchmark) peak() (float64, error) {
	dir, err := b.daemon()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0, errors.New("the kernel does not say how much memory the daemon took")
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	return kib / 1024, err
}
