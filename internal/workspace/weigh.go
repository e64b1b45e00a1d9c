package workspace

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"

	"banger"
	"banger/internal/patch"
)

// largestText is of what size a patch shows a file line by line. One of nothing but
// ends of lines takes git more than sixty times its size of memory to compare.
const largestText = 16 << 20

// weight is what the contents of changes are like.
type weight struct {
	whole bool     // the new ones are all there
	large []string // paths where one side is larger than largestText
}

// weigh notes the sizes of contents, and refuses more than a guest may send:
// packed, or named in many places, it may have been little.
func (q *quarantine) weigh(ctx context.Context, changes []patch.Change) (weight, error) {
	w, left := weight{whole: true}, int64(largestPack)
	ids := &texts{changes: changes, text: func(c patch.Change) string { return idLine(c.Old) + idLine(c.New) }}
	after := make([]int64, len(changes)) // what asks git reads changes meanwhile
	err := q.within(comparing).read(ctx, ids, func(r io.Reader) error {
		sizes := bufio.NewScanner(r)
		for i, c := range changes {
			before, _ := nextSize(sizes, c.Old)
			size, there := nextSize(sizes, c.New)
			w.whole, after[i] = w.whole && there, size
			if max(before, size) > largestText {
				w.large = append(w.large, c.Path)
			}
			if left -= size; left < 0 {
				return banger.Errorf(banger.Conflict, "the files that changed would be larger than %d bytes here", int64(largestPack))
			}
		}
		return sizes.Err()
	}, "cat-file", "--batch-check=%(objectsize)")
	for i, size := range after {
		changes[i].Size = size
	}
	return w, err
}

// idLine names the content of a file to git, where it has one of its own.
func idLine(f patch.File) string {
	if f.Mode == patch.Absent || f.Mode == patch.Repository {
		return ""
	}
	return f.ID + "\n"
}

// nextSize reads what git answered to idLine.
func nextSize(sizes *bufio.Scanner, f patch.File) (size int64, there bool) {
	if idLine(f) == "" {
		return 0, true
	}
	sizes.Scan()
	size, err := strconv.ParseInt(sizes.Text(), 10, 64) // "ID missing"
	return size, err == nil
}

// texts reads as a text for each change, one after the other.
type texts struct {
	changes []patch.Change
	text    func(patch.Change) string
	rest    string
}

// Read implements io.Reader.
func (t *texts) Read(p []byte) (n int, err error) {
	for n < len(p) {
		for t.rest == "" && len(t.changes) > 0 {
			t.rest, t.changes = t.text(t.changes[0]), t.changes[1:]
		}
		if t.rest == "" {
			break
		}
		copied := copy(p[n:], t.rest)
		n, t.rest = n+copied, t.rest[copied:]
	}
	if n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// asBinary has patches hold files without showing their lines.
func asBinary(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		b.WriteString(quoted("/"+globbed(p)) + " -diff\n")
	}
	return b.String()
}
