package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"
)

// Of the format: names that begin so take something away.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	aufs     = ".wh..wh." // others with it are notes of an old file system
)

// What a name and a path may have, as on Linux.
const (
	maxName = 255
	maxPath = 4096
)

// entry does to the tree what one entry says. Errors go on after its name.
func (t *Tree) entry(h *tar.Header, ordinal int32) error {
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	kind, err := kindOf(h)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if kind != tar.TypeDir {
			return errors.New("would replace the root by something else than a directory")
		}
		t.declare(root, kind, ordinal)
		return nil
	}
	dir, err := t.walk(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	switch {
	case strings.HasPrefix(name, whiteout):
		return t.whiteout(dir, name)
	case kind == tar.TypeLink:
		return t.link(dir, name, h.Linkname)
	case kind == tar.TypeChar || kind == tar.TypeBlock:
		if !t.Devices {
			return refuseDevice(parts, kind)
		}
	}
	if err := t.create(dir, name, kind, ordinal); err != nil {
		return err
	}
	if kind == tar.TypeSymlink {
		if err := checkTarget(h.Linkname); err != nil {
			return err
		}
		t.links[int32(len(t.inodes)-1)] = h.Linkname
	}
	return nil
}

// split gives the components of a path inside the tree.
func split(name string) (parts []string, err error) {
	switch {
	case len(name) > maxPath:
		return nil, fmt.Errorf("has a path of %d bytes, of at most %d", len(name), maxPath)
	case strings.ContainsRune(name, 0):
		return nil, errors.New("has a zero byte in its name")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return nil, errors.New("leaves the tree")
		case len(part) > maxName:
			return nil, fmt.Errorf("has a name of %d bytes, of at most %d", len(part), maxName)
		case part != "" && part != ".":
			parts = append(parts, strings.Clone(part))
		}
	}
	return parts, nil
}

// kindOf is the type of an entry, of those there can be.
func kindOf(h *tar.Header) (byte, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return tar.TypeReg, nil
	case tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return h.Typeflag, nil
	}
	return 0, fmt.Errorf("is of the unknown type %q", h.Typeflag)
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("is a symbolic link to nothing")
	case len(target) >= maxPath:
		return fmt.Errorf("is a symbolic link of %d bytes, of at most %d", len(target), maxPath-1)
	case strings.ContainsRune(target, 0):
		return errors.New("is a symbolic link with a zero byte")
	}
	return nil
}

// everyDev are the devices that some images bring although every system makes
// them itself.
var everyDev = map[string]bool{
	"null": true, "zero": true, "full": true, "random": true, "urandom": true, "tty": true, "console": true, "ptmx": true,
	"tty0": true, "tty1": true, "tty2": true, "tty3": true, "tty4": true,
}

func refuseDevice(parts []string, kind byte) error {
	if kind == tar.TypeChar && len(parts) == 2 && parts[0] == "dev" && everyDev[parts[1]] {
		return nil
	}
	return errors.New("is a device node")
}

// declare says of a node that the entry describes it from now on.
func (t *Tree) declare(n int32, kind byte, ordinal int32) {
	t.inodes = append(t.inodes, inode{layer: t.layer, ordinal: ordinal, kind: kind})
	t.nodes[n].inode, t.nodes[n].layer = int32(len(t.inodes)-1), t.layer
}

// create puts a file in place of what is there, of which only a directory
// stays that becomes a directory.
func (t *Tree) create(dir int32, name string, kind byte, ordinal int32) (err error) {
	n, exists := t.names[edge{dir, name}]
	if exists && (kind != tar.TypeDir || t.kind(n) != tar.TypeDir) {
		t.detach(n)
		exists = false
	}
	if !exists {
		if n, err = t.attach(dir, name, undeclared); err != nil {
			return err
		}
	}
	t.declare(n, kind, ordinal)
	return nil
}

// link gives a file a second name. Which file that is is settled here: a layer
// above may replace what has the first one.
func (t *Tree) link(dir int32, name, target string) error {
	parts, err := split(target)
	if err != nil {
		return fmt.Errorf("is a hard link to %s, which %w", shown(target), err)
	}
	var of int32
	if len(parts) > 0 {
		if of, err = t.walk(parts[:len(parts)-1], false); err == nil {
			of = t.names[edge{of, parts[len(parts)-1]}]
		}
	}
	switch {
	case err != nil || of == 0:
		return fmt.Errorf("is a hard link to %s, which is not there", shown(target))
	case t.kind(of) == tar.TypeDir:
		return fmt.Errorf("is a hard link to %s, which is a directory", shown(target))
	}
	inode := t.nodes[of].inode
	if n, exists := t.names[edge{dir, name}]; exists {
		if n == of {
			return nil
		}
		t.detach(n)
	}
	if _, stays := t.names[edge{t.nodes[of].parent, t.nodes[of].name}]; !stays {
		return fmt.Errorf("is a hard link to %s, which it replaces", shown(target))
	}
	_, err = t.attach(dir, name, inode)
	return err
}

// whiteout takes away what older layers have by that name, or all they have in
// the directory. What this layer itself says stays, in whichever order it does.
func (t *Tree) whiteout(dir int32, name string) error {
	if name == opaque {
		t.hideBelow(dir)
		return nil
	}
	if strings.HasPrefix(name, aufs) {
		return nil
	}
	name = strings.TrimPrefix(name, whiteout)
	if name == "" || name == "." || name == ".." {
		return errors.New("is a whiteout of its own directory")
	}
	n, exists := t.names[edge{dir, name}]
	if !exists {
		return nil
	}
	t.hideBelow(n)
	if t.nodes[n].child == 0 && t.nodes[n].layer < t.layer {
		t.detachLeaf(n)
	}
	return nil
}

// maxSteps is how many directories all paths together may lead through: links
// to long paths would make few bytes a lot of work.
const maxSteps = 100_000_000

// maxFollowed is how many symbolic links one path may lead through.
const maxFollowed = 40

// walk finds a directory, through symbolic links where they stay inside the
// tree, and with missing ones made where that is wanted.
func (t *Tree) walk(parts []string, create bool) (int32, error) {
	at, followed := int32(root), 0
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		if t.steps++; t.steps > maxSteps {
			return 0, errors.New("is one too many: paths lead through too many directories")
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if at == root {
				return 0, errors.New("leaves the tree through a symbolic link")
			}
			at = t.nodes[at].parent
			continue
		}
		n, exists := t.names[edge{at, part}]
		switch {
		case !exists && !create:
			return 0, errors.New("is not there")
		case !exists:
			made, err := t.implied(at, part)
			if err != nil {
				return 0, err
			}
			n = made
		case t.kind(n) == tar.TypeSymlink:
			if followed++; followed > maxFollowed {
				return 0, errors.New("lies behind too many symbolic links")
			}
			target := t.links[t.nodes[n].inode]
			if path.IsAbs(target) {
				at = root
			}
			parts = append(strings.Split(target, "/"), parts...)
			continue
		case t.kind(n) != tar.TypeDir:
			return 0, fmt.Errorf("lies in %s, which is no directory", shown(t.path(n)))
		}
		at = n
	}
	return at, nil
}

// implied makes a directory that no entry describes, or none yet.
func (t *Tree) implied(dir int32, name string) (int32, error) {
	if len(name) > maxName {
		return 0, fmt.Errorf("lies in a directory with a name of %d bytes", len(name))
	}
	if t.entries++; t.entries > t.limits.Entries {
		return 0, fmt.Errorf("is one too many: there are more than %d", t.limits.Entries)
	}
	return t.attach(dir, name, undeclared)
}

// path is where a node is, without a slash before it.
func (t *Tree) path(n int32) string {
	var parts []string
	for ; n != root; n = t.nodes[n].parent {
		parts = append(parts, t.nodes[n].name)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}
