// Package guestbin carries the guest binary, built for the guest by
// `make build` into this directory and embedded.
//
// It knows nothing of what the binary does or where it goes.
package guestbin

import (
	"embed"
	"errors"
	"io/fs"
)

// The placeholder lets the pattern match, and so the package compile, before
// the binary was built.
//
//go:embed banger-guest*
var files embed.FS

// ErrMissing is the failure of a banger that was built without its agent.
var ErrMissing = errors.New("this banger was built without its guest agent: build it with `make build`")

// Binary is the guest binary, or ErrMissing.
func Binary() ([]byte, error) {
	content, err := files.ReadFile("banger-guest")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing
	}
	return content, err
}
