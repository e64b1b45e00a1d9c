package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	seedDir    = "/run/initramfs/banger/seed"
	seededFile = ".banger/seeded" // of the writable disk: it has what the seed holds
)

// TakeSeed has fill copy the tree of the image's work seed, which is below dir for
// that long, unless the machine has none or its disk has that tree already. A copy
// that was cut short is made again.
func (s *System) TakeSeed(fill func(dir string) error) error {
	digest := s.cmdline["banger.seed"]
	if digest == "" {
		return nil
	}
	seeded := procPath(s.Disk) + "/" + seededFile
	if _, err := os.Lstat(seeded); err == nil {
		return nil
	}
	dev, err := s.disk("seed")
	if err != nil {
		return err
	}
	// What it is to do about errors is written in a file system, and it may be to
	// panic.
	if err := mountNew(dev, seedDir, "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "noload,errors=continue"); err != nil {
		return err
	}
	err = errors.Join(fill(seedDir), unix.Unmount(seedDir, 0), os.Remove(seedDir))
	if err != nil {
		return err
	}
	// All of it is on the disk before anything says so.
	if err := unix.Syncfs(int(s.Disk.Fd())); err != nil {
		return err
	}
	return note(seeded, digest)
}

// note writes a file that is there after a power cut.
func note(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot note that it is done: %w", err)
	}
	_, err = f.WriteString(text + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
