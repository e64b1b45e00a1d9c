// Package hostca reads the certificates of authorities that the administrator of
// this host added to those of its distribution.
//
// It knows files and X.509, and nothing of VMs, guests or the configuration.
package hostca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where administrators put certificates.
type Dir struct {
	Path   string // absolute; one that is missing has none
	Suffix string // of the files that count, "" for all
	Deep   bool   // directories in it count too
}

// Usual is where the distributions' own tools look.
var Usual = []Dir{
	{"/usr/local/share/ca-certificates", ".crt", true},       // Debian, Alpine, Gentoo
	{"/etc/pki/ca-trust/source/anchors", "", false},          // Fedora and its kin
	{"/etc/pki/trust/anchors", "", false},                    // SUSE
	{"/etc/ca-certificates/trust-source/anchors", "", false}, // Arch
}

// Limits of what is read.
const (
	MaxBytes = 256 << 10 // of the result
	maxFile  = 1 << 20   // bytes of one file
	maxFiles = 256
)

// Read gives the certificates in these directories as PEM, each once and without what
// stands between them, and what was left out: a line each that names the file.
func Read(dirs []Dir) (text []byte, problems []string) {
	r := reader{seen: map[string]bool{}}
	for _, d := range dirs {
		err := r.dir(d)
		if errors.Is(err, errFull) {
			r.leaveOut(d.Path, err)
			break
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.leaveOut(d.Path, err)
		}
	}
	return r.out.Bytes(), r.problems
}

type reader struct {
	out      bytes.Buffer
	seen     map[string]bool // by their DER
	files    int
	problems []string
}

// errFull ends the reading: what would come next has no room.
var errFull = fmt.Errorf("what is left there is more than %d files or %d KiB", maxFiles, MaxBytes>>10)

func (r *reader) leaveOut(path string, err error) {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	r.problems = append(r.problems, fmt.Sprintf("the certificates of %q were left out: %v", path, err))
}

func (r *reader) dir(d Dir) error {
	return filepath.WalkDir(d.Path, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && path == d.Path:
			return err
		case err != nil:
			r.leaveOut(path, err)
			return nil
		case e.IsDir() && path != d.Path && !d.Deep:
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, d.Suffix):
			return nil
		}
		if r.files++; r.files > maxFiles {
			return errFull
		}
		if err := r.file(path); errors.Is(err, errFull) {
			return err
		} else if err != nil {
			r.leaveOut(path, err)
		}
		return nil
	})
}

// file takes a file's certificates, all or, where one is broken, none.
func (r *reader) file(path string) error {
	text, err := readSmall(path)
	if err != nil {
		return err
	}
	certificates, err := parse(text)
	if err != nil {
		return err
	}
	for _, c := range certificates {
		if r.seen[string(c.Raw)] {
			continue
		}
		r.seen[string(c.Raw)] = true
		block := pem.EncodeToMemory(&pem.Block{Type: certificate, Bytes: c.Raw})
		if r.out.Len()+len(block) > MaxBytes {
			return errFull
		}
		r.out.Write(block)
	}
	return nil
}

// readSmall reads a plain file, through a link too, and waits for nothing else.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(text) > maxFile {
		return nil, fmt.Errorf("it is larger than %d KiB", maxFile>>10)
	}
	return text, err
}

const certificate = "CERTIFICATE"

// parse reads PEM. What else it may hold, such as a key, is no certificate and is
// passed over.
func parse(text []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != certificate {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return all, nil
}
