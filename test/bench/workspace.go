package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"banger/test/world"
)

const (
	manyFiles = 10_000
	fileSize  = 20 << 10
)

// workspace measures bringing a repository of 200 MB in, beside a plain tar
// stream into the same guest, and what a workspace adds to other commands.
func (b *benchmark) workspace() (err error) {
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	large, small := filepath.Join(dir, "large"), filepath.Join(dir, "small")
	if err := errors.Join(repositoryOf(large, manyFiles), repositoryOf(small, 20)); err != nil {
		return err
	}
	if _, err := b.up(); err != nil {
		return err
	}
	if err := b.bringIn(large); err != nil {
		return err
	}
	return b.around(small)
}

// bringIn measures the first prepare and those after it.
func (b *benchmark) bringIn(repository string) error {
	empty := b.command("exec", "bench", "--guest-path", "/", "--", "rm", "-rf", "/root/repo", "/root/tar")
	all, err := inTurn(2,
		func() error {
			return errors.Join(empty(), b.command("exec", "bench", "--guest-path", "/", "--", "mkdir", "/root/tar")())
		},
		func() error { return b.pipe(repository) },
		b.command("vm", "workspace", "prepare", "bench", repository))
	if err != nil {
		return err
	}
	first := medians(fmt.Sprintf("prepare of %d files, 200 MB (floor: tar)", manyFiles), 0, all[2], all[1])
	first.times = 1.3
	first.print()
	var again []time.Duration
	for range slow {
		if err := grow(filepath.Join(repository, "0", "0")); err != nil {
			return err
		}
		began := time.Now()
		if err := b.command("vm", "workspace", "prepare", "bench", repository)(); err != nil {
			return err
		}
		again = append(again, time.Since(began))
	}
	medians("prepare again, one file changed", time.Second, again, nil).print()
	return nil
}

// around measures what a workspace adds to an exec and to a run.
func (b *benchmark) around(repository string) error {
	all, err := inTurn(quick,
		b.command("exec", "bench", "--guest-path", "/", "--", "true"),
		b.command("exec", "bench", "--", "true"))
	if err != nil {
		return err
	}
	above("exec in a workspace, above one without", 15*time.Millisecond, all[1], all[0]).print()
	all, err = inTurn(slow,
		b.command("run", "--rm", "--", "true"),
		b.command("run", repository, "--rm", "--", "true"))
	if err != nil {
		return err
	}
	above("run with a small repository, above one without", 300*time.Millisecond, all[1], all[0]).print()
	return nil
}

// pipe is the floor: one tar stream through one exec.
func (b *benchmark) pipe(repository string) error {
	cmd := exec.Command("bash", "-o", "pipefail", "-c",
		`tar c --exclude=.git -C "$1" . | "$0" exec -i bench --guest-path / -- tar x -C /root/tar`, b.w.Bin, repository)
	cmd.Env = b.w.Env()
	if r := world.Finish(cmd); r.Status != 0 {
		return fmt.Errorf("the plain stream: status %d: %s", r.Status, r.Stderr)
	}
	return nil
}

// repositoryOf makes a repository of so many files of words, as sources are.
func repositoryOf(dir string, files int) error {
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4000)
	for i := range words {
		words[i] = strings.Repeat(string(rune('a'+random.IntN(26))), 1+random.IntN(3)) + fmt.Sprint(random.IntN(5000))
	}
	for i := range files {
		var text strings.Builder
		for text.Len() < fileSize {
			text.WriteString(words[random.IntN(len(words))] + "\n")
		}
		path := filepath.Join(dir, fmt.Sprint(i/400), fmt.Sprint(i%20), fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command("bash", "-ec", `git init -q; git add -A
git -c user.name=bench -c user.email=bench@localhost commit -qm all; git gc -q`)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a repository: %w: %s", err, out)
	}
	return nil
}

// grow adds a line to the first file of a directory.
func grow(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "0"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, "one more")
	return errors.Join(err, f.Close())
}
