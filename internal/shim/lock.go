package shim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
)

// shim.lock is locked while its shim has the VM and holds the shim's Identity.
// The lock is an open-file-description one because that kind can be asked
// about without being taken: who merely looks disturbs nobody.

var wholeFile = unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}

// takeLock makes this process the VM's shim until the file is closed.
func takeLock(dir paths.VM, id Identity) (*os.File, error) {
	f, err := os.OpenFile(dir.ShimLock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lock := wholeFile
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = banger.Errorf(banger.Conflict, "the VM already has a shim")
	}
	if err == nil {
		err = record(f, id)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func record(f *os.File, id Identity) error {
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(text, '\n'), 0)
	return err
}

// Alive says whether a shim has the VM, and which one had it last.
func Alive(dir paths.VM) (Identity, bool, error) {
	f, err := os.Open(dir.ShimLock())
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, false, nil
	}
	if err != nil {
		return Identity{}, false, err
	}
	defer f.Close()
	lock := wholeFile
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return Identity{}, false, err
	}
	var id Identity
	if err := json.NewDecoder(f).Decode(&id); err != nil {
		id = Identity{} // killed between taking the lock and writing to it
	}
	return id, lock.Type != unix.F_UNLCK, nil
}

// KillRecorded kills the shim that the VM's lock names, and no other process,
// and returns when it is gone; its VMM dies with it. It is for a shim that no
// longer answers. Without one it does nothing.
func KillRecorded(ctx context.Context, dir paths.VM) error {
	id, _, err := Alive(dir)
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot look for the VM's shim: %w", err)
	}
	if err := id.kill(ctx); err != nil {
		return banger.Errorf(banger.CodeOf(err), "cannot kill the VM's shim: %w", err)
	}
	return nil
}
