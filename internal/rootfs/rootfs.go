// Package rootfs joins the layers of an image, tar streams that may come from
// anybody, into the entries of one file system.
//
// Layers are replayed in memory, on a tree of names; nothing of them ever
// becomes a file of the host. It knows nothing of registries or of ext4.
package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// Limits bounds what layers may ask for. Their zero value is Default's.
type Limits struct {
	Entries int   // of all layers together, directories nobody declared included
	Text    int64 // bytes of names and of the targets of links
	Bytes   int64 // of all layers unpacked, and of all files in them
}

// Default is what fits with room to spare around any sensible image: half a
// million entries take some 200 MiB of memory until they are written.
var Default = Limits{Entries: 500_000, Text: 64 << 20, Bytes: 64 << 30}

// Tree is the file system that the layers added so far make.
type Tree struct {
	// Devices admits device nodes anywhere. Without it those that any /dev has
	// are left out there, and all others are refused.
	Devices bool

	dir    string
	limits Limits

	unpacked atomic.Int64  // bytes of all layers
	layers   []*spooled    // what they unpack to
	top      chan struct{} // closed when the highest of them has been replayed
	broken   atomic.Bool

	// What follows belongs to the layer whose turn it is.

	layer   int32 // its index
	entries int
	text    int64
	// claimed is the size of all files. It is more than what the layers unpack
	// to where files have holes, which cost a layer nothing.
	claimed int64
	steps   int
	names   names
	nodes   []node
	inodes  []inode
	links   map[int32]string // targets of symbolic links, by inode
}

// New makes an empty tree, which keeps what it reads in nameless files in dir
// until Close.
func New(dir string, limits Limits) *Tree {
	if limits == (Limits{}) {
		limits = Default
	}
	t := &Tree{dir: dir, limits: limits, top: make(chan struct{}), names: names{}, links: map[int32]string{}}
	close(t.top)
	t.nodes = []node{{parent: root, inode: undeclared}}
	return t
}

// Close frees what the tree holds.
func (t *Tree) Close() error {
	var err error
	for _, l := range t.layers {
		err = errors.Join(err, l.f.Close())
	}
	t.layers = nil
	return err
}

// Add replays a layer on all before it: see Place.
func (t *Tree) Add(ctx context.Context, layer io.Reader) error {
	if t.broken.Load() {
		return errors.New("a layer below failed")
	}
	p, err := t.Place()
	if err != nil {
		return err
	}
	return p.Add(ctx, layer)
}

func (t *Tree) replay(stream io.Reader) error {
	in := tar.NewReader(stream)
	for ordinal := int32(0); ; ordinal++ {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.count(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := t.entry(h, ordinal); err != nil {
			return fmt.Errorf("entry %s %w", shown(h.Name), err)
		}
	}
}

// count refuses more than the limits allow, before it takes memory.
func (t *Tree) count(h *tar.Header) error {
	t.entries++
	t.text += int64(len(h.Name) + len(h.Linkname))
	switch {
	case t.entries > t.limits.Entries:
		return fmt.Errorf("there are more than %d entries", t.limits.Entries)
	case t.text > t.limits.Text:
		return fmt.Errorf("names and links take more than %d bytes", t.limits.Text)
	case h.Size > t.limits.Bytes-t.claimed:
		return fmt.Errorf("entry %s claims to have %d bytes, and all files together have more than %d bytes", shown(h.Name), h.Size, t.limits.Bytes)
	}
	t.claimed += h.Size
	return nil
}

// shown is a name for people, whatever is in it.
func shown(name string) string {
	const most = 200
	if len(name) > most {
		return fmt.Sprintf("%q… (%d bytes)", name[:most], len(name))
	}
	return fmt.Sprintf("%q", name)
}
