package workspace

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// standIn is a guest that is a directory of this machine: its commands run
// here, with its home as HOME.
type standIn struct{ home string }

func (s standIn) Run(ctx context.Context, c Command) (int, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = s.home
	}
	cmd.Env = append([]string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}, c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case errors.Is(err, exec.ErrNotFound):
		return 127, nil
	}
	return 0, err
}

func (s standIn) Unpack(ctx context.Context, dir string, write func(io.Writer) error) error {
	r, w := io.Pipe()
	tar := exec.CommandContext(ctx, "tar", "-x", "--no-same-owner", "-p", "-f", "-", "-C", dir)
	tar.Stdin = r
	done := make(chan error, 1)
	go func() {
		err := write(w)
		_ = w.CloseWithError(err)
		done <- err
	}()
	err := tar.Run()
	_ = r.CloseWithError(err)
	return errors.Join(<-done, err)
}

func (s standIn) Look(_ context.Context, path string) (Found, error) {
	info, err := os.Stat(filepath.Clean(path))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return Nothing, nil
	case err != nil:
		return Nothing, err
	case info.IsDir():
		return Directory, nil
	}
	return File, nil
}

func (b broken) Unpack(ctx context.Context, dir string, write func(io.Writer) error) error {
	return b.standIn.Unpack(ctx, dir, func(w io.Writer) error { return write(&limited{w, b.after}) })
}

// limited fails after some bytes.
type limited struct {
	to   io.Writer
	left int
}

var errCut = errors.New("the stream broke off")

func (l *limited) Write(p []byte) (int, error) {
	if len(p) <= l.left {
		l.left -= len(p)
		return l.to.Write(p)
	}
	n, _ := l.to.Write(p[:l.left])
	l.left = 0
	return n, errCut
}
