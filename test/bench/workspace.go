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
	few       = 2 // what takes tens of seconds
	manyFiles = 10_000
	fileSize  = 20 << 10
)

// workspace measures what a workspace adds to other commands.
func (b *benchmark) workspace() error {
	return b.withRepository(20, b.around)
}

// prepare200 measures bringing a repository of 200 MB in, beside a plain tar stream
// into the same guest.
func (b *benchmark) prepare200() error {
	return b.withRepository(manyFiles, b.bringIn)
}

// withRepository measures with a repository of so many files, and a VM.
func (b *benchmark) withRepository(files int, measure func(string) error) (err error) {
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := repositoryOf(dir, files); err != nil {
		return err
	}
	if _, err := b.up(); err != nil {
		return err
	}
	return measure(dir)
}

// bringIn measures the first prepare and those after it.
func (b *benchmark) bringIn(repository string) error {
	empty := b.command("exec", "bench", "--guest-path", "/", "--", "rm", "-rf", "/root/repo", "/root/tar")
	all, err := inTurn(b.often(few),
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
	return b.bringAgain(repository)
}

// bringAgain measures a prepare after one file has changed: its time, and the most that
// the VM's shim passed on for one, in both directions.
func (b *benchmark) bringAgain(repository string) error {
	vm, err := b.look("bench")
	if err != nil {
		return err
	}
	var again []time.Duration
	var moved int64
	for range b.often(slow) {
		if err := grow(filepath.Join(repository, "0", "0")); err != nil {
			return err
		}
		before, began := writtenBy(vm.ShimPID), time.Now()
		if err := b.command("vm", "workspace", "prepare", "bench", repository)(); err != nil {
			return err
		}
		again = append(again, time.Since(began))
		moved = max(moved, writtenBy(vm.ShimPID)-before)
	}
	medians("prepare again, one file changed", time.Second, again, nil).print()
	row{what: "the most that one of these moved", n: len(again), unit: mib, figure: float64(moved) / (1 << 20), most: 1e6 / (1 << 20)}.print()
	return nil
}

// around measures what a workspace adds to an exec and to a run.
func (b *benchmark) around(repository string) error {
	if err := b.command("vm", "workspace", "prepare", "bench", repository, "--force")(); err != nil {
		return err
	}
	all, err := inTurn(b.often(quick),
		b.command("exec", "bench", "--guest-path", "/", "--", "true"),
		b.command("exec", "bench", "--", "true"))
	if err != nil {
		return err
	}
	above("exec in a workspace, above one without", 15*time.Millisecond, all[1], all[0]).print()
	all, err = inTurn(b.often(slow),
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
git -c gc.auto=0 -c user.name=bench -c user.email=bench@localhost commit -qm all; git gc -q`)
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
