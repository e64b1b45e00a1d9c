// Package sshkeys makes and keeps the SSH keys of an installation: the user's,
// which VMs let in, the VMs' own, and the file that pins those for ssh.
//
// It knows files and key formats, and nothing of connections or rows.
package sshkeys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/artifact"
	"banger/internal/paths"
)

// Keys are the keys of one installation. They are safe for concurrent use in
// one process, which has to be the only one that changes them.
type Keys struct {
	Dirs paths.Dirs

	mu sync.Mutex // held while files are read and written over
}

// Identity is what lets a user in.
type Identity struct {
	Path string // of the private key, for ssh's IdentityFile
	Key  string // the public half, as in authorized_keys
}

// User is the user's identity: the key at path, or banger's own where path is
// empty, which is made when there is none.
func (k *Keys) User(path string) (Identity, error) {
	if path != "" {
		key, err := readPublic(path)
		if err != nil {
			return Identity{}, fileError(err, "cannot use ssh_key_path %s", path)
		}
		return Identity{path, line(key)}, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	path = k.Dirs.UserKey()
	key, err := readPublic(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			key, err = generate(path, "banger")
		}
		if err == nil {
			err = artifact.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(key))
		}
	}
	if err != nil {
		return Identity{}, fileError(err, "cannot make the user's key %s", path)
	}
	return Identity{path, line(key)}, nil
}

// readPublic reads the public half of a key: from the private one where that
// shows it, else from the .pub file beside it.
func readPublic(path string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if signer, err := ssh.ParsePrivateKey(text); err == nil {
		return signer.PublicKey(), nil
	} else if locked := new(ssh.PassphraseMissingError); errors.As(err, &locked) && locked.PublicKey != nil {
		return locked.PublicKey, nil
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		return nil, banger.Errorf(banger.Conflict, "it is no private key that can be read, and there is no %s.pub", filepath.Base(path)).
			Hint("ssh-keygen -y -f %s > %s.pub", path, path)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(public)
	return key, err
}

// generate makes a key and writes its private half, into a directory that there is.
func generate(path, comment string) (ssh.PublicKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	if err := artifact.WriteFile(path, pem.EncodeToMemory(block)); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(private.Public())
}

// line is a key as in authorized_keys and known_hosts.
func line(key ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}

func fileError(err error, format string, args ...any) error {
	if err != nil && banger.CodeOf(err) == banger.Internal {
		err = banger.Errorf(banger.Unavailable, "%w", err)
	}
	return banger.Wrap(err, format, args...)
}
