package layers

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader"
	"github.com/lima-vm/go-qcow2reader/image"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// openLayer opens a layer for reading. Only our kind is taken: one that names a
// file below it could have us read any file of the host's.
func openLayer(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	img, err := readLayer(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is no disk layer, or damaged: %w", path, err)
	}
	return img, nil
}

func readLayer(f *os.File) (image.Image, error) {
	named, err := namesBacking(f)
	if err != nil {
		return nil, err
	}
	if named {
		return nil, errors.New("it names a file below it")
	}
	img, err := qcow2reader.OpenWithType(padded{f}, qcow2.Type)
	if err != nil {
		return nil, err
	}
	return img, img.Readable()
}

// namesBacking looks before the library does, which would open the file.
func namesBacking(f *os.File) (bool, error) {
	var offset [8]byte
	if _, err := f.ReadAt(offset[:], 8); err != nil {
		return false, err
	}
	return offset != [8]byte{}, nil
}

// padded is a file that goes on in zeroes: the last cluster need not be there
// in full.
type padded struct{ *os.File }

func (p padded) ReadAt(buf []byte, off int64) (int, error) {
	n, err := p.File.ReadAt(buf, off)
	if errors.Is(err, io.EOF) {
		clear(buf[n:])
		return len(buf), nil
	}
	return n, err
}
