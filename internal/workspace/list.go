package workspace

import (
	"bufio"
	"context"
	_ "embed"
	"io"

	"banger/internal/patch"
)

//go:embed list.sh
var listScript string

// List says which files differ from what was brought in, and takes nothing out.
// It is the guest's word, for people to read.
func List(ctx context.Context, g Runner, t Taking) (changes []patch.Change, err error) {
	err = t.run(ctx, g, listScript, func(r *bufio.Reader) (err error) {
		changes, err = patch.Read(io.LimitReader(r, longestList))
		return err
	})
	return changes, err
}

// longestList is more than a list of a million files.
const longestList = 1 << 28
