package kernel

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// index is the radix tree that kmod looks names up in (modules.dep.bin and
// its like): big-endian, nodes written after their children, the flags of a
// node in the high bits of the offset that points at it.
type index struct {
	entries []indexEntry
}

type indexEntry struct {
	key, value string
	priority   int
}

const (
	indexMagic   = 0xb007f457
	indexVersion = 0x00020001

	indexHasPrefix   = 0x80000000
	indexHasValues   = 0x40000000
	indexHasChildren = 0x20000000

	indexMaxKey = 0x7f // keys are ASCII
)

// add puts a value under key. A key that is not ASCII cannot be represented,
// nor looked up, and is left out.
func (x *index) add(key, value string, priority int) {
	if strings.IndexFunc(key, func(r rune) bool { return r == 0 || r > indexMaxKey }) < 0 {
		x.entries = append(x.entries, indexEntry{key, value, priority})
	}
}

// bytes is the whole index; one of more than maxIndex bytes is not whole.
func (x *index) bytes() []byte {
	slices.SortStableFunc(x.entries, func(a, b indexEntry) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return a.priority - b.priority
	})
	var out bytes.Buffer
	putUint32(&out, indexMagic)
	putUint32(&out, indexVersion)
	putUint32(&out, 0)
	root := writeIndexNode(&out, x.entries, 0)
	b := out.Bytes()
	binary.BigEndian.PutUint32(b[8:], root)
	return b
}

// writeIndexNode writes the node for entries, sorted and equal in their first
// depth bytes, and gives its offset with flags.
func writeIndexNode(out *bytes.Buffer, entries []indexEntry, depth int) uint32 {
	if out.Len() > maxIndex {
		return 0 // of no use any more
	}
	prefix := commonPrefix(entries, depth)
	depth += len(prefix)
	here := 0
	for here < len(entries) && len(entries[here].key) == depth {
		here++
	}
	values, rest := entries[:here], entries[here:]

	first, offsets := writeIndexChildren(out, rest, depth)
	offset := uint32(out.Len())
	if prefix != "" {
		out.WriteString(prefix)
		out.WriteByte(0)
		offset |= indexHasPrefix
	}
	if len(offsets) > 0 {
		out.WriteByte(first)
		out.WriteByte(first + byte(len(offsets)-1))
		for _, o := range offsets {
			putUint32(out, o)
		}
		offset |= indexHasChildren
	}
	if len(values) > 0 {
		putUint32(out, uint32(len(values)))
		for _, v := range values {
			putUint32(out, uint32(v.priority))
			out.WriteString(v.value)
			out.WriteByte(0)
		}
		offset |= indexHasValues
	}
	return offset
}

// writeIndexChildren writes a node for each next byte in use. The offsets run
// from the first such byte to the last; a gap is 0.
func writeIndexChildren(out *bytes.Buffer, entries []indexEntry, depth int) (first byte, offsets []uint32) {
	if len(entries) == 0 {
		return 0, nil
	}
	first = entries[0].key[depth]
	offsets = make([]uint32, entries[len(entries)-1].key[depth]-first+1)
	for len(entries) > 0 {
		c := entries[0].key[depth]
		n := 0
		for n < len(entries) && entries[n].key[depth] == c {
			n++
		}
		offsets[c-first] = writeIndexNode(out, entries[:n], depth+1)
		entries = entries[n:]
	}
	return first, offsets
}

// commonPrefix is what all keys share from depth on. The entries are sorted,
// so the first and the last tell.
func commonPrefix(entries []indexEntry, depth int) string {
	if len(entries) == 0 {
		return ""
	}
	a, b := entries[0].key[depth:], entries[len(entries)-1].key[depth:]
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

func putUint32(out *bytes.Buffer, n uint32) {
	_ = binary.Write(out, binary.BigEndian, n) // a buffer does not fail
}
