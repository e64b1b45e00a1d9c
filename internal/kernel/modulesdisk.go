package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/ext4"
)

// scanModules reads the directory of one release into a tree. release is
// what the kernel calls itself; modules built for another are refused.
func scanModules(ctx context.Context, dir, release, scratch string) (*moduleTree, error) {
	bad := func(format string, args ...any) error {
		return banger.Errorf(banger.BadRequest, "cannot import the modules in %s: %w", dir, fmt.Errorf(format, args...))
	}
	var modules []module
	words, kept, size := 0, 0, int64(0)
	err := eachModule(dir, func(plain, file string) error {
		f, err := openModule(ctx, file, scratch)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := parseModule(plain, f)
		if err != nil {
			return bad("%w", err)
		}
		if m.vermagic != "" && m.vermagic != release {
			return bad("%s is built for %s, the kernel is %s", plain, m.vermagic, release)
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		n, bytes := m.words()
		words, kept, size = words+n, kept+bytes, size+info.Size()
		if words > maxWords || kept > maxKept || size > maxAllModules {
			return bad("they have more than %d bytes, or say more of themselves than %d words of %d bytes", int64(maxAllModules), maxWords, maxKept)
		}
		modules = append(modules, m)
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	order, err := readAtMost(filepath.Join(dir, modulesOrder), maxList)
	if err != nil {
		return nil, bad("%w", err)
	}
	builtin, err := readAtMost(filepath.Join(dir, modulesBuiltin), maxList)
	if err != nil {
		return nil, bad("%w", err)
	}
	return newModuleTree(modules, string(order), string(builtin)), nil
}

// Files of a release directory that are taken as they are, if they are there.
const (
	modulesOrder       = "modules.order"
	modulesBuiltin     = "modules.builtin"
	modulesBuiltinInfo = "modules.builtin.modinfo"
)

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

// writeModulesDisk writes a read-only ext4 file whose root is the content of
// /lib/modules: RELEASE/kernel/… and the indexes. Equal modules give equal
// bytes.
func writeModulesDisk(ctx context.Context, dir, release string, tree *moduleTree, dest string) error {
	files, err := tree.indexFiles(ctx)
	if err != nil {
		return banger.Errorf(banger.BadRequest, "cannot import the modules in %s: %w", dir, err)
	}
	for name, most := range map[string]int64{modulesOrder: maxList, modulesBuiltin: maxList, modulesBuiltinInfo: maxBuiltinInfo} {
		content, err := readAtMost(filepath.Join(dir, name), most)
		if err != nil {
			return banger.Errorf(banger.BadRequest, "cannot import the modules in %s: %w", dir, err)
		}
		if content != nil {
			files[name] = content
		}
	}
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		pw.CloseWithError(writeModulesTar(ctx, pw, dir, release, filepath.Dir(dest), files))
	}()
	err = ext4.FromTar(ctx, pr, dest, ext4.Options{Unique: true})
	pr.CloseWithError(err)
	<-written
	return err
}

// writeModulesTar writes what the disk holds, in an order that is always the same.
// Modules are unpacked beside the disk.
func writeModulesTar(ctx context.Context, w io.Writer, dir, release, scratch string, files map[string][]byte) error {
	t := treeWriter{tar: tar.NewWriter(w), made: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := t.file(path.Join(release, name), bytes.NewReader(files[name]), int64(len(files[name]))); err != nil {
			return err
		}
	}
	err := eachModule(dir, func(plain, file string) error {
		f, err := openModule(ctx, file, scratch)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return t.file(path.Join(release, plain), f, info.Size())
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

func (t *treeWriter) file(name string, content io.Reader, size int64) error {
	if err := t.dir(path.Dir(name)); err != nil {
		return err
	}
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
	if err := t.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := io.Copy(t.tar, content)
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
