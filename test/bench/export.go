package main

import (
	"errors"
	"fmt"
	"os"

	"banger/test/world"
)

// The repository that is worked on: what is changed is a part of it.
const (
	exportFiles   = 5000
	exportChanged = 1000
)

// export measures taking a change of many files out of a guest, beside the text of
// it that git prints there.
func (b *benchmark) export() (err error) {
	if _, err := b.up(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := world.Repository(dir, exportFiles); err != nil {
		return err
	}
	change := fmt.Sprintf("ls -d d*/* | head -%d | while read f; do echo changed >>$f; done", exportChanged)
	for _, args := range [][]string{{"vm", "workspace", "prepare", "bench", dir}, {"exec", "bench", "--", "sh", "-c", change}} {
		if err := b.command(args...)(); err != nil {
			return err
		}
	}
	all, err := inTurn(b.often(slow), b.command("exec", "bench", "--", "git", "--no-optional-locks", "diff"), b.command("vm", "workspace", "export", "bench"))
	if err != nil {
		return err
	}
	r := medians(fmt.Sprintf("export of %d changed files (floor: git diff there)", exportChanged), 0, all[1], all[0])
	r.times = 1.5
	r.print()
	return nil
}
