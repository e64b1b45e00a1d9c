package rootfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// ended closes read when r has been read to its end.
func ended(r io.Reader) (of io.Reader, read chan struct{}) {
	read = make(chan struct{})
	last := iotest.ErrReader(io.EOF)
	return io.MultiReader(r, readerFunc(func(p []byte) (int, error) {
		close(read)
		return last.Read(p)
	})), read
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func mustPlace(t *testing.T, tree *Tree) *Place {
	t.Helper()
	p, err := tree.Place()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLayersAreReadBesideEachOtherAndReplayedInTheirOrder(t *testing.T) {
	layers := [][]byte{
		layerOf(t, file("a", "lowest"), file("d/gone", "x"), file("zeros", strings.Repeat("\x00", 300<<10)+"end"+strings.Repeat("\x00", 200<<10))),
		layerOf(t, file("a", "middle"), without("d/.wh.gone"), hardlink("z", "zeros")),
		layerOf(t, file("a", "highest"), file("d/new", "y")),
	}
	want, err := world(t, newTree(t), layers...)
	if err != nil {
		t.Fatal(err)
	}
	tree := newTree(t)
	added := make(chan error, len(layers))
	places := []*Place{mustPlace(t, tree), mustPlace(t, tree), mustPlace(t, tree)}
	for i := len(layers) - 1; i >= 0; i-- {
		stream, read := ended(bytes.NewReader(layers[i]))
		go func() { added <- places[i].Add(context.Background(), stream) }()
		<-read // although none below it has come
	}
	for range layers {
		if err := <-added; err != nil {
			t.Fatal(err)
		}
	}
	if got, err := world(t, tree); err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

func TestALayerWaitsForThoseBelowUntilItsContextEnds(t *testing.T) {
	tree := newTree(t)
	low, high := mustPlace(t, tree), mustPlace(t, tree)
	ctx, cancel := context.WithCancel(context.Background())
	stream, read := ended(bytes.NewReader(layerOf(t, file("a", "1"))))
	added := make(chan error, 1)
	go func() { added <- high.Add(ctx, stream) }()
	<-read
	if err := low.Add(ctx, bytes.NewReader(layerOf(t, file("../a", "1")))); err == nil || !strings.Contains(err.Error(), "leaves the tree") {
		t.Errorf("the lower one: %v", err)
	}
	select {
	case err := <-added:
		t.Errorf("the higher one did not wait: %v", err)
	default:
	}
	cancel()
	if err := <-added; !errors.Is(err, context.Canceled) {
		t.Errorf("the higher one: %v", err)
	}
	if err := tree.Add(context.Background(), bytes.NewReader(nil)); err == nil {
		t.Error("a tree that failed takes more")
	}
}

func TestARefusedLayerIsNotReadToItsEnd(t *testing.T) {
	tree := newTree(t)
	bad := layerOf(t, file("../a", "1"))
	var passed int64
	noise := readerFunc(func(p []byte) (int, error) {
		passed += int64(len(p))
		return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
	})
	if err := tree.Add(context.Background(), io.MultiReader(bytes.NewReader(bad), noise)); err == nil || !strings.Contains(err.Error(), "leaves the tree") {
		t.Errorf("%v after %d bytes", err, passed)
	}
}

// What comes behind the end of an archive is no way to fill a disk.
func TestWhatFollowsAnArchiveIsReadAndNotKept(t *testing.T) {
	kept, err := spool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kept.f.Close()
	if _, err := io.WriteString(kept, "archive"); err != nil {
		t.Fatal(err)
	}
	kept.leave(nil)
	if n, err := io.WriteString(kept, "more"); n != 4 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if err := kept.end(nil); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(&follower{s: kept}); err != nil || string(b) != "archive" {
		t.Errorf("%q %v", b, err)
	}
}

func TestAHoleIsReadBeforeTheFileIsThatLong(t *testing.T) {
	kept, err := spool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kept.f.Close()
	if _, err := kept.Write(append([]byte("a"), make([]byte, len(zeros)+8)...)); err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte("x"), len(zeros)+9)
	if n, err := io.ReadFull(&follower{s: kept}, b); err != nil || strings.Trim(string(b[1:]), "\x00") != "" {
		t.Errorf("%d %v", n, err)
	}
}
