package guest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkUnpack(b *testing.B) {
	var stream bytes.Buffer
	tw := tar.NewWriter(&stream)
	content := bytes.Repeat([]byte("words "), 3000)
	for i := range 2000 {
		_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("a/b/c/d%d/f%d", i/20, i), Size: int64(len(content)), Mode: 0o644})
		_, _ = tw.Write(content)
	}
	_ = tw.Close()
	for b.Loop() {
		root, err := openDir(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		x := &unpacker{root: root}
		if err := x.all(tar.NewReader(bytes.NewReader(stream.Bytes()))); err != nil {
			b.Fatal(err)
		}
		x.leave()
		root.Close()
	}
}
