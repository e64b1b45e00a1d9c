package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"
	"banger/internal/kmod"
)

// module is one loadable module: where it lies below the release directory
// and what its .modinfo section says.
type module struct {
	path     string // as in "kernel/fs/overlayfs/overlay.ko", uncompressed
	name     string // with underscores, as in /proc/modules
	depends  []string
	aliases  []string
	softdeps []string
	vermagic string // the release it was built for
}

func parseModule(p string, content io.ReaderAt) (module, error) {
	m := module{path: p, name: kmod.Name(p)}
	info, err := modinfo(content)
	if err != nil {
		return m, fmt.Errorf("%s is no kernel module: %w", p, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		value = strings.Clone(value) // without all the rest
		switch key {
		case "depends":
			m.depends = splitDepends(value)
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			m.softdeps = append(m.softdeps, value)
		case "vermagic":
			m.vermagic, _, _ = strings.Cut(value, " ")
		}
	}
	return m, nil
}

func modinfo(content io.ReaderAt) ([]byte, error) {
	f, err := openELF(content)
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	switch {
	case section == nil:
		return nil, errors.New("it has no .modinfo")
	case section.Flags&elf.SHF_COMPRESSED != 0:
		return nil, errors.New("its .modinfo is compressed")
	case section.FileSize > maxSection:
		return nil, fmt.Errorf("its .modinfo has %d bytes, of at most %d", section.FileSize, maxSection)
	}
	return section.Data()
}

func splitDepends(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name != "" {
			names = append(names, kmod.Canonical(name))
		}
	}
	return names
}

// words is how much a module says: how many words, of how many bytes.
func (m module) words() (n, bytes int) {
	bytes = len(m.path) + len(m.name) + len(m.vermagic)
	for _, list := range [][]string{m.depends, m.aliases, m.softdeps} {
		n += len(list)
		for _, word := range list {
			bytes += len(word)
		}
	}
	return n, bytes
}

// isModuleFile says whether a file is a module, and gives its path without
// the suffix of its compression.
func isModuleFile(p string) (plain string, ok bool) {
	for _, suffix := range []string{"", ".xz", ".zst", ".gz"} {
		if plain, found := strings.CutSuffix(p, ".ko"+suffix); found {
			return plain + ".ko", true
		}
	}
	return "", false
}

// openModule opens a module's content. What is compressed is unpacked, by its file
// name, into a file without a name in scratch.
func openModule(ctx context.Context, file, scratch string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	var unpack func(io.Reader) (io.Reader, error)
	switch path.Ext(file) {
	case ".xz":
		unpack = unxz
	case ".zst":
		unpack = unzstd
	case ".gz":
		unpack = gunzip
	default:
		info, err := f.Stat()
		if err == nil && info.Size() > maxModule {
			err = badModule(file, errTooLarge)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	defer f.Close()
	out, err := unnamed(scratch)
	if err != nil {
		return nil, err
	}
	r, err := unpack(artifact.Reader(ctx, f))
	if err == nil {
		err = copyAtMost(out, r, maxModule)
	}
	if err == nil {
		_, err = out.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(badModule(file, err), out.Close())
	}
	return out, nil
}

func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".module-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func badModule(file string, err error) error {
	if hostsOwn(err) {
		return err
	}
	return banger.Errorf(banger.BadRequest, "cannot unpack the module %s: %w", filepath.Base(file), err)
}

// hostsOwn says whether it is not the file that is bad, but that nobody wants it any
// more or the host cannot keep it.
func hostsOwn(err error) bool {
	var host *os.PathError
	return errors.As(err, &host) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
