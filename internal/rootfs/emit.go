package rootfs

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"time"
)

// Each gives every entry of the finished file system once, by its path: hard
// links after what they point at, a directory perhaps after what is in it.
// content holds what the header's size says, and only until add returns.
func (t *Tree) Each(add func(h *tar.Header, content io.Reader) error) error {
	first, more := t.byInode()
	if err := t.eachUndeclared(add); err != nil {
		return err
	}
	for layer := range t.layers {
		if err := t.eachOf(int32(layer), first, more, add); err != nil {
			return err
		}
	}
	return nil
}

// byInode gives the node of every inode that has one, and the others it has.
func (t *Tree) byInode() (first []int32, more map[int32][]int32) {
	first, more = make([]int32, len(t.inodes)), map[int32][]int32{}
	for i := range first {
		first[i] = gone
	}
	for n := range t.nodes {
		i := t.nodes[n].inode
		switch {
		case t.nodes[n].parent == gone || i == undeclared:
		case first[i] == gone:
			first[i] = int32(n)
		default:
			more[i] = append(more[i], int32(n))
		}
	}
	return first, more
}

// eachUndeclared gives the directories that are only there because something
// is in them.
func (t *Tree) eachUndeclared(add func(*tar.Header, io.Reader) error) error {
	for n := range t.nodes {
		if t.nodes[n].parent == gone || t.nodes[n].inode != undeclared {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeDir, Name: t.path(int32(n)) + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
		if n == root {
			h.Name = "./"
		}
		if err := add(h, nil); err != nil {
			return err
		}
	}
	return nil
}

// eachOf reads a layer again, for the entries of it that are left.
func (t *Tree) eachOf(layer int32, first []int32, more map[int32][]int32, add func(*tar.Header, io.Reader) error) error {
	if _, err := t.layers[layer].f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := tar.NewReader(bufio.NewReaderSize(t.layers[layer].f, 1<<20))
	at := int32(-1)
	for i, described := range t.inodes {
		if described.layer != layer || first[i] == gone {
			continue
		}
		var h *tar.Header
		for ; at < described.ordinal; at++ {
			var err error
			if h, err = in.Next(); err != nil {
				return fmt.Errorf("cannot read a layer again: %w", err)
			}
		}
		if err := t.give(h, in, first[i], more[int32(i)], add); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) give(h *tar.Header, content io.Reader, first int32, more []int32, add func(*tar.Header, io.Reader) error) error {
	h.Name = t.path(first)
	if first == root {
		h.Name = "."
	}
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := add(h, content); err != nil {
		return err
	}
	for _, n := range more {
		if err := add(&tar.Header{Typeflag: tar.TypeLink, Name: t.path(n), Linkname: t.path(first)}, nil); err != nil {
			return err
		}
	}
	return nil
}
