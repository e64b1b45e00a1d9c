package vm

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
	"banger/internal/paths"
)

// Held is vm.json, the record in a VM's directory: enough to rebuild the row,
// and the mark by which a directory is known to be ours. Which shim had the VM
// last, in which boot of the host, is in shim.lock.
type Held struct {
	Layout    int         `json:"layout"`
	ID        string      `json:"id"`
	Name      string      `json:"name"`
	ImageID   string      `json:"image_id"`
	GuestIP   string      `json:"guest_ip"`
	CreatedAt time.Time   `json:"created_at"`
	Spec      banger.Spec `json:"spec"`

	Workspace banger.Workspace `json:"workspace,omitzero"`
}

func heldOf(vm banger.VM) Held {
	return Held{banger.Layout, vm.ID, vm.Name, vm.ImageID, vm.GuestIP, vm.CreatedAt, vm.Spec, vm.Workspace}
}

// row is the row the record can give back.
func (h Held) row() banger.VM {
	return banger.VM{
		ID: h.ID, Name: h.Name, ImageID: h.ImageID, GuestIP: h.GuestIP, CreatedAt: h.CreatedAt, Spec: h.Spec,
		State: banger.StateCreated, Workspace: h.Workspace,
	}
}

// ReadHeld reads the record in dir: not_found where there is none.
func ReadHeld(dir paths.VM) (Held, error) {
	h := Held{Spec: banger.DefaultSpec()}
	text, err := os.ReadFile(dir.Record())
	if errors.Is(err, fs.ErrNotExist) {
		return h, banger.Errorf(banger.NotFound, "there is no vm.json: %w", err)
	}
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err == nil && (h.Layout < 1 || !banger.IsID(h.ID)) {
		err = errors.New("it is no record of a VM")
	}
	return h, banger.Wrap(err, "cannot read %s", dir.Record())
}

// ours says whether dir is the directory of the VM with this id.
func ours(dir paths.VM, id string) bool {
	h, err := ReadHeld(dir)
	return err == nil && h.ID == id
}

// hold writes the record of vm.
func hold(dir paths.VM, vm banger.VM) error {
	text, err := json.MarshalIndent(heldOf(vm), "", "  ")
	if err != nil {
		return err
	}
	return fileError(artifact.WriteFile(dir.Record(), append(text, '\n')))
}

// newPrefix begins the name of a directory that is being made.
const newPrefix = ".new-"

// newDir is where the directory of a VM is made, beside its place.
func (m *Manager) newDir(id string) paths.VM {
	return paths.VM(filepath.Join(m.Dirs.VMs(), newPrefix+id))
}

// Unplaced gives the id of the VM whose directory is being made under this name.
func Unplaced(name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, newPrefix)
	return id, ok && banger.IsID(id)
}

func (m *Manager) trashDir(id string) paths.VM {
	return paths.VM(filepath.Join(m.Dirs.VMTrash(), id))
}

// discard moves a VM's directory out of sight, whole in one step. One that is
// not ours, or not there, is left alone.
func (m *Manager) discard(id string, dir paths.VM) error {
	if !ours(dir, id) {
		return nil
	}
	if err := os.MkdirAll(m.Dirs.VMTrash(), 0o700); err != nil {
		return fileError(err)
	}
	// An earlier discard that was cut short may lie there.
	if err := os.RemoveAll(string(m.trashDir(id))); err != nil {
		return fileError(err)
	}
	return fileError(artifact.Rename(string(dir), string(m.trashDir(id))))
}

// fileError gives what the file system refused its code.
func fileError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return banger.Errorf(banger.Cancelled, "%w", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return banger.Errorf(banger.NoSpace, "%w", err).
			Hint("free some disk space, for example with banger vm prune or banger image cache prune")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return banger.Errorf(banger.Unavailable, "%w", err).
			Hint("the state directory must be yours: see banger doctor, or set XDG_STATE_HOME")
	}
	return banger.Errorf(banger.CodeOf(err), "%w", err)
}
