package rootfs

import (
	"archive/tar"
	"fmt"
	"slices"
)

// names finds a node by its directory and its name there.
type names map[edge]int32

type edge struct {
	dir  int32
	name string
}

// node is a name in the tree. Nodes refer to each other by index; 0 is the
// root, and as no node is its own sibling or child it also means none.
type node struct {
	name                         string
	parent, child, sibling, prev int32
	inode                        int32
	layer                        int32 // which last spoke of it
	length                       int32 // of its path in bytes
	clearedBy                    int32 // one more than the layer that hid all that was below
}

const root = 0

// undeclared is the inode of a directory that no entry describes.
const undeclared = -1

// inode is a file: the entry of a layer that describes it.
type inode struct {
	layer, ordinal int32
	kind           byte // type flag of the entry
}

// attach gives a new node its place. Symbolic links could take an entry as deep as
// all of them together, and each step of each path costs time when the tree is written.
func (t *Tree) attach(parent int32, name string, inode int32) (int32, error) {
	length := int(t.nodes[parent].length) + len(name)
	if parent != root {
		length++
	}
	if length > maxPath {
		return 0, fmt.Errorf("comes to have a path of %d bytes, of at most %d", length, maxPath)
	}
	n := int32(len(t.nodes))
	first := t.nodes[parent].child
	t.nodes = append(t.nodes, node{name: name, parent: parent, sibling: first, inode: inode, layer: t.layer, length: int32(length)})
	if first != 0 {
		t.nodes[first].prev = n
	}
	t.nodes[parent].child = n
	t.names[edge{parent, name}] = n
	return n, nil
}

// detach takes a node and all below it out of the tree.
func (t *Tree) detach(n int32) {
	for t.nodes[n].child != 0 {
		t.detachLeaf(t.deepest(n))
	}
	t.detachLeaf(n)
}

// deepest is a node without children below n: trees may be deeper than a
// recursion should go.
func (t *Tree) deepest(n int32) int32 {
	for t.nodes[n].child != 0 {
		n = t.nodes[n].child
	}
	return n
}

func (t *Tree) detachLeaf(n int32) {
	nd := &t.nodes[n]
	if nd.prev != 0 {
		t.nodes[nd.prev].sibling = nd.sibling
	} else {
		t.nodes[nd.parent].child = nd.sibling
	}
	if nd.sibling != 0 {
		t.nodes[nd.sibling].prev = nd.prev
	}
	delete(t.names, edge{nd.parent, nd.name})
	*nd = node{inode: undeclared, parent: gone}
}

// gone is the parent of a node that is no longer in the tree.
const gone = -1

// hideBelow takes out of the tree what older layers put below n.
func (t *Tree) hideBelow(n int32) {
	if t.cleared(n) {
		return
	}
	for _, m := range slices.Backward(t.below(n)) { // children before their directories
		if t.nodes[m].child == 0 && t.nodes[m].layer < t.layer {
			t.detachLeaf(m)
		}
	}
	t.nodes[n].clearedBy = t.layer + 1
}

// cleared says that nothing of older layers is below n. Without it a layer
// that hides the same again and again would keep us busy for hours.
func (t *Tree) cleared(n int32) bool {
	for ; n != root; n = t.nodes[n].parent {
		if t.nodes[n].clearedBy == t.layer+1 {
			return true
		}
	}
	return t.nodes[root].clearedBy == t.layer+1
}

// below lists the nodes below n, directories before what is in them, but for
// what is in a directory that holds nothing old.
func (t *Tree) below(n int32) (all []int32) {
	for next := []int32{n}; len(next) > 0; {
		dir := next[len(next)-1]
		next = next[:len(next)-1]
		for m := t.nodes[dir].child; m != 0; m = t.nodes[m].sibling {
			all = append(all, m)
			if t.nodes[m].child != 0 && t.nodes[m].clearedBy != t.layer+1 {
				next = append(next, m)
			}
		}
	}
	return all
}

// kind is what a node is, as a type flag.
func (t *Tree) kind(n int32) byte {
	if i := t.nodes[n].inode; i != undeclared {
		return t.inodes[i].kind
	}
	return tar.TypeDir
}
