package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/ext4"
)

// scanModules reads the directory of one release into a tree. release is
// what the kernel calls itself; modules built for another are refused.
func scanModules(ctx context.Context, dir, release string) (*moduleTree, error) {
	var modules []module
	err := eachModule(dir, func(plain, file string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		content, err := readModule(file)
		if err != nil {
			return err
		}
		m, err := parseModule(plain, content)
		if err != nil {
			return banger.Errorf(banger.BadRequest, "cannot import the modules in %s: %w", dir, err)
		}
		if m.vermagic != "" && m.vermagic != release {
			return banger.Errorf(banger.BadRequest,
				"cannot import the modules in %s: %s is built for %s, the kernel is %s", dir, plain, m.vermagic, release)
		}
		modules = append(modules, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	order, _ := os.ReadFile(filepath.Join(dir, "modules.order"))
	builtin, _ := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	return newModuleTree(modules, string(order), string(builtin)), nil
}

// eachModule calls visit for the modules below dir with their path in dir,
// uncompressed, and their file.
func eachModule(dir string, visit func(plain, file string) error) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err // links such as build and source point outside
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if plain, ok := isModuleFile(rel); ok {
			return visit(plain, file)
		}
		return nil
	})
}

func readModule(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return uncompressModule(file, content)
}

// writeModulesDisk writes a read-only ext4 file whose root is the content of
// /lib/modules: RELEASE/kernel/… and the indexes. Equal modules give equal
// bytes.
func writeModulesDisk(ctx context.Context, dir, release string, tree *moduleTree, dest string) error {
	files, err := tree.indexFiles()
	if err != nil {
		return banger.Errorf(banger.BadRequest, "cannot import the modules in %s: %w", dir, err)
	}
	for _, name := range []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			files[name] = content
		}
	}
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		pw.CloseWithError(writeModulesTar(pw, dir, release, files))
	}()
	err = ext4.FromTar(ctx, pr, dest, ext4.Options{Unique: true})
	pr.CloseWithError(err)
	<-written
	return err
}

func writeModulesTar(w io.Writer, dir, release string, files map[string][]byte) error {
	t := treeWriter{tar: tar.NewWriter(w), made: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := t.file(path.Join(release, name), files[name]); err != nil {
			return err
		}
	}
	err := eachModule(dir, func(plain, file string) error {
		content, err := readModule(file)
		if err != nil {
			return err
		}
		return t.file(path.Join(release, plain), content)
	})
	if err != nil {
		return err
	}
	return t.tar.Close()
}

// treeWriter writes files of root into a tar, with their directories before
// them.
type treeWriter struct {
	tar  *tar.Writer
	made map[string]bool
}

func (t *treeWriter) file(name string, content []byte) error {
	if err := t.dir(path.Dir(name)); err != nil {
		return err
	}
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := t.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := t.tar.Write(content)
	return err
}

func (t *treeWriter) dir(name string) error {
	if name == "." || t.made[name] {
		return nil
	}
	if err := t.dir(path.Dir(name)); err != nil {
		return err
	}
	t.made[name] = true
	return t.tar.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)})
}
