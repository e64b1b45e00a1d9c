package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"compress/gzip"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger/internal/kmod"
)

// maxModule bounds what a compressed module may unpack to.
const maxModule = 256 << 20

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

func parseModule(p string, content []byte) (module, error) {
	m := module{path: p, name: kmod.Name(p)}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return m, fmt.Errorf("%s is no kernel module: %w", p, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return m, fmt.Errorf("%s is no kernel module: it has no .modinfo", p)
	}
	info, err := section.Data()
	if err != nil {
		return m, fmt.Errorf("%s: %w", p, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(field, "=")
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

func splitDepends(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name != "" {
			names = append(names, kmod.Canonical(name))
		}
	}
	return names
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

// uncompressModule unpacks a module's content by its file name.
func uncompressModule(p string, content []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch path.Ext(p) {
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(content))
	case ".zst":
		r, err = zstd.NewReader(bytes.NewReader(content))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(content))
	default:
		return content, nil
	}
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(r, maxModule+1))
	}
	if err == nil && len(content) > maxModule {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the module %s: %w", p, err)
	}
	return content, nil
}
