package guest

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// rootHome is what a work seed fills, whatever /etc/passwd says.
const rootHome = "/root"

// fillHome copies the tree below seed to home, over the files that are there, with
// owners, modes and times. The directory itself stays as it is. Nothing in a seed
// leads out of home, and what is neither file nor directory nor link is refused.
func fillHome(seed, home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return err
	}
	defer root.Close()
	from, to := io.Pipe()
	go func() { _ = to.CloseWithError(packSeed(seed, to)) }()
	defer from.Close()
	x := &unpacker{root: root, dir: home, keep: true, me: os.Geteuid(), myGroup: os.Getegid()}
	defer x.leave()
	return x.all(tar.NewReader(from))
}

// packSeed packs what is in a work seed, but for what mkfs puts into each.
func packSeed(seed string, to io.Writer) error {
	entries, err := os.ReadDir(seed)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(to, 256<<10)
	p := &packer{out: tar.NewWriter(out), names: map[inode]string{}, buf: make([]byte, 64<<10)}
	for _, e := range entries {
		if e.Name() == "lost+found" && e.IsDir() {
			continue
		}
		if err := p.tree(filepath.Join(seed, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return errors.Join(p.out.Close(), out.Flush())
}
