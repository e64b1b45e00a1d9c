package layers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
)

// copyLimit is how much data is copied rather than frozen: it takes some 40 ms,
// and spares both sides a layer.
const copyLimit = 64 << 20

// Take makes dir to, which has no disk, hold a copy of the disk in dir from as
// it is now, which shares no file with it that anybody writes.
//
// What is below from's top becomes hard links. The top is cloned where the file
// system can, and copied if it has little data; else Take makes an empty layer
// on top of from and calls freeze with its name, and what was the top becomes a
// hard link too. freeze, such as vmm.Machine.FreezeDisk, returns once nobody
// writes there any more; nil stands for a disk that no machine has. With
// writable, to gets an empty layer of its own where its top is a hard link.
//
// Until Take returns, or has called freeze, the disk must stand still. New layers
// are synced, other files are not. Where Take fails, to has no disk; from keeps
// the new layer if freeze has taken it, or failed with not_running.
func Take(ctx context.Context, from, to string, writable bool, freeze func(name string) error) error {
	t := taking{ctx: ctx, from: from, to: to}
	if err := t.take(writable, freeze); err != nil {
		return banger.Wrap(errors.Join(err, remove(to, t.made...)), "cannot copy a disk")
	}
	return nil
}

// taking is a Take under way.
type taking struct {
	ctx      context.Context
	from, to string
	made     []string // names of files in to
}

// take begins at the top and ends with the base, without which there is no
// disk.
func (t *taking) take(writable bool, freeze func(string) error) error {
	if there, err := diskFiles(t.to); err != nil || len(there) > 0 {
		return errors.Join(err, alreadyThere(t.to, there))
	}
	files, err := filesOf(t.from)
	if err != nil {
		return err
	}
	below, top := files[:len(files)-1], files[len(files)-1]
	own, err := t.copyTop(top)
	if err != nil {
		return err
	}
	if !own {
		below = files
		if err := freezeTop(t.from, freeze); err != nil {
			return err
		}
		if writable {
			if err := t.addLayer(files); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Backward(below) {
		if err := t.link(name); err != nil {
			return err
		}
	}
	return nil
}

func alreadyThere(dir string, files []string) error {
	if len(files) == 0 {
		return nil
	}
	return banger.Errorf(banger.AlreadyExists, "%s has %s already", dir, files[0])
}

// copyTop makes a file of to's own of the one that takes the writes, unless
// that takes too long.
func (t *taking) copyTop(name string) (bool, error) {
	from, to := filepath.Join(t.from, name), filepath.Join(t.to, name)
	data, err := allocated(from)
	if err != nil {
		return false, err
	}
	copied, err := clone(from, to)
	if err == nil && !copied && data <= copyLimit {
		copied, err = true, ext4.Copy(t.ctx, from, to)
	}
	if copied && err == nil {
		t.made = append(t.made, name)
	}
	return copied, err
}

// clone makes to share the blocks of from until one of them is written, where
// the file system can.
func clone(from, to string) (bool, error) {
	in, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	refused := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	if err := out.Close(); err != nil || refused != nil {
		return false, errors.Join(err, os.Remove(to))
	}
	return true, nil
}

// freezeTop puts an empty layer on top of the disk in dir and has freeze use it.
// A machine that refuses still writes to the file below: the layer must not
// stay, since the topmost is taken for the one that is written.
func freezeTop(dir string, freeze func(name string) error) error {
	name, err := New(dir)
	if err != nil || freeze == nil {
		return err
	}
	err = freeze(name)
	if err != nil && banger.CodeOf(err) != banger.NotRunning {
		return errors.Join(err, remove(dir, name))
	}
	return err
}

// addLayer makes to's own layer above files, which are still from's alone.
func (t *taking) addLayer(files []string) error {
	top := files[len(files)-1]
	size, err := sizeOf(filepath.Join(t.from, top))
	if err != nil {
		return err
	}
	name := layerName(layerNumber(top) + 1)
	if err := CreateOverlay(filepath.Join(t.to, name), size); err != nil {
		return err
	}
	t.made = append(t.made, name)
	return nil
}

// link gives a file that nobody writes a second name, or copies it to another
// file system.
func (t *taking) link(name string) error {
	from, to := filepath.Join(t.from, name), filepath.Join(t.to, name)
	err := os.Link(from, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) {
		err = ext4.Copy(t.ctx, from, to)
	}
	if err == nil {
		t.made = append(t.made, name)
	}
	return err
}
