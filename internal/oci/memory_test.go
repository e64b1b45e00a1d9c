package oci

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// growing is a zstd layer of many frames, each of which may refer further back than
// the one before.
func growing(t *testing.T) *os.File {
	t.Helper()
	var b []byte
	for window := 0; ; window++ { // in RFC 8878 an exponent of 5 bits, and 3 of eighths
		size := uint32(1) << (10 + window>>3)
		if size += size / 8 * uint32(window&7); size > maxWindow {
			break
		}
		b = append(b, 0x28, 0xb5, 0x2f, 0xfd, 0, byte(window))
		block := binary.LittleEndian.AppendUint32(nil, 1|1<<1|1<<3) // the last, of one byte that is repeated
		b = append(append(b, block[:3]...), 'x')
	}
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What is given up counts too: two layers at once can be at their largest before any
// of it is collected.
func TestALayerOfGrowingWindowsTakesTheMemoryOfOne(t *testing.T) {
	f := growing(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n < 100 {
		t.Errorf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if took, most := after.TotalAlloc-before.TotalAlloc, uint64(maxWindow+16<<20); took > most {
		t.Errorf("it took %d MiB, more than %d", took>>20, most>>20)
	}
}
