package sshkeys

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/artifact"
	"banger/internal/paths"
)

// Alias is what a VM's host key is pinned as, whatever the VM is called.
func Alias(id string) string { return aliasPrefix + id }

const aliasPrefix = "banger-"

// HostName is what ssh calls a VM.
func HostName(name string) string { return name + ".vm" }

// Host sees that a VM has a host key that is the pinned one, and that it is
// found by the VM's name too. A VM that has neither key nor pin gets both; one
// that has lost its key or got another is refused by name.
func (k *Keys) Host(dir paths.VM, id, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	pins, err := k.readPins()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(pins, func(p pin) bool { return p.id == id })
	key, err := k.hostKey(dir, name, at < 0)
	if err != nil {
		return err
	}
	if at < 0 {
		pins = append(pins, pin{id: id, key: key})
		at = len(pins) - 1
	}
	if pins[at].key != key {
		return k.mismatch(id, name, "is not the one that was pinned for it")
	}
	if pins[at].name == name {
		return nil
	}
	rename(pins, at, name)
	return k.writePins(pins)
}

// hostKey is the public half of a VM's key, as in known_hosts.
func (k *Keys) hostKey(dir paths.VM, name string, fresh bool) (string, error) {
	text, err := os.ReadFile(dir.HostKey())
	if err == nil {
		var signer ssh.Signer
		if signer, err = ssh.ParsePrivateKey(text); err == nil {
			return line(signer.PublicKey()), nil
		}
	}
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return "", fileError(err, "cannot read the host key of %s", name)
	case !fresh:
		return "", k.mismatch("", name, "is gone from "+dir.HostKey())
	}
	key, err := generate(dir.HostKey(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", banger.Errorf(banger.NotFound, "cannot make a host key for %s: its directory %s is gone", name, dir)
	}
	if err != nil {
		return "", fileError(err, "cannot make a host key for %s", name)
	}
	return line(key), nil
}

func (k *Keys) mismatch(id, name, how string) error {
	return banger.Errorf(banger.Conflict, "the SSH host key of %s %s: somebody changed one of the two", name, how).
		Hint("if that was you: remove its line from %s and its key from its directory (banger vm show %s)", k.Dirs.KnownHosts(), name)
}

// Rename lets the host key of a VM be found by its new name.
func (k *Keys) Rename(id, name string) error {
	return k.change(func(pins []pin) []pin {
		if at := slices.IndexFunc(pins, func(p pin) bool { return p.id == id }); at >= 0 {
			rename(pins, at, name)
		}
		return pins
	})
}

// rename gives a name to one pin and takes it from all others: it is one VM's,
// and whoever had it before is gone.
func rename(pins []pin, at int, name string) {
	for i := range pins {
		if pins[i].name == name {
			pins[i].name = ""
		}
	}
	pins[at].name = name
}

// Keep forgets all VMs but those with these ids.
func (k *Keys) Keep(known func(id string) bool) error {
	return k.change(func(pins []pin) []pin {
		return slices.DeleteFunc(pins, func(p pin) bool { return !known(p.id) })
	})
}

// Forget forgets a VM.
func (k *Keys) Forget(id string) error {
	return k.Keep(func(other string) bool { return other != id })
}

func (k *Keys) change(do func([]pin) []pin) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	pins, err := k.readPins()
	if err != nil {
		return err
	}
	before := slices.Clone(pins)
	if pins = do(pins); slices.Equal(pins, before) {
		return nil
	}
	return k.writePins(pins)
}

// pin is one line of known_hosts.
type pin struct{ id, name, key string }

// readPins reads the file, whose lines are all ours.
func (k *Keys) readPins() ([]pin, error) {
	text, err := os.ReadFile(k.Dirs.KnownHosts())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(err, "cannot read the pinned host keys")
	}
	var pins []pin
	for l := range strings.Lines(string(text)) {
		names, key, _ := strings.Cut(strings.TrimSpace(l), " ")
		alias, host, _ := strings.Cut(names, ",")
		if id, ok := strings.CutPrefix(alias, aliasPrefix); ok {
			pins = append(pins, pin{id, strings.TrimSuffix(host, ".vm"), key})
		}
	}
	return pins, nil
}

func (k *Keys) writePins(pins []pin) error {
	var text strings.Builder
	for _, p := range pins {
		text.WriteString(Alias(p.id))
		if p.name != "" {
			text.WriteString("," + HostName(p.name))
		}
		text.WriteString(" " + p.key + "\n")
	}
	err := os.MkdirAll(k.Dirs.Keys(), 0o700)
	if err == nil {
		err = artifact.WriteFile(k.Dirs.KnownHosts(), []byte(text.String()))
	}
	return fileError(err, "cannot write the pinned host keys")
}
