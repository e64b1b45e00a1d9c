package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/rootfs"
)

// Commit makes an image of the tar stream of a guest's root, in which a guest
// can write what it likes. of is the image that the guest was made from.
func (b Builder) Commit(ctx context.Context, name string, of Record, source string, stream func(use func(io.Reader) error) error, progress func(string)) (banger.Image, error) {
	img, err := b.once(ctx, name, func(Record) bool { return false }, func(dir string, _ *os.File) (Record, error) {
		tree := rootfs.New(dir, rootfs.Default)
		tree.Devices = true // a guest's are its own
		defer tree.Close()
		progress("read the files of the VM")
		if err := stream(func(r io.Reader) error { return tree.Add(ctx, r) }); err != nil {
			return Record{}, err
		}
		if err := tree.Add(ctx, bytes.NewReader(nobody())); err != nil {
			return Record{}, err
		}
		progress("write the file system")
		err := writeTree(ctx, tree, filepath.Join(dir, rootfsFile))
		progress("compute the digest")
		return Record{
			Source: source, Env: of.Env, WorkDir: of.WorkDir, User: of.User, Entrypoint: of.Entrypoint, Cmd: of.Cmd,
			Kernel: of.Kernel, BuildSize: of.BuildSize,
		}, err
	})
	return img, cancelled(ctx, fileError(err))
}

// nobody is what an image has where a VM has its own: files that are there, and
// empty.
func nobody() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"etc/machine-id", "etc/resolv.conf"} {
		_ = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}) // a buffer takes everything
	}
	_ = w.Close()
	return b.Bytes()
}
