package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/artifact"
)

func TestSweepTakesWhatACrashLeft(t *testing.T) {
	b := Builder{Dir: t.TempDir()}
	left, stranger, begun := filepath.Join(b.Dir, ".build-debian"), filepath.Join(b.Dir, "notes"), filepath.Join(b.Dir, banger.NewID())
	for _, dir := range []string{left, stranger, begun} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := artifact.Lock(context.Background(), filepath.Join(b.Dir, ".lock-debian"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sweep(); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Unfinished(); err != nil || len(found) > 0 {
		t.Errorf("in use: %v, %v", found, err)
	}
	if _, err := os.Stat(begun); err == nil {
		t.Error("what a registration began is still there")
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a build that goes on lost its directory: %v", err)
	}
	unlock()
	if found, err := b.Unfinished(); err != nil || len(found) != 1 {
		t.Errorf("unfinished: %v, %v", found, err)
	}
	if err := b.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("it is still there")
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a stranger's directory is gone: %v", err)
	}
}

func TestSweepTakesTheCopyOfAPromotionThatWasCutOff(t *testing.T) {
	b := Builder{Dir: t.TempDir()}
	id := banger.NewID()
	dir := filepath.Join(b.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record := `{"id":"` + id + `","name":"mine","registered":{"path":"/home/me/rootfs.ext4"}}`
	for name, content := range map[string]string{recordFile: record, rootfsFile: "whole", ".tmp-" + seedFile: "a part"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := b.Unfinished(); err != nil || len(found) != 2 {
		t.Errorf("unfinished: %v, %v", found, err)
	}
	if err := b.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != recordFile {
		t.Errorf("left: %v", left)
	}
	if err := writeRecord(dir, Record{ID: id, Name: "mine"}); err != nil { // promoted now
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rootfsFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Unfinished(); err != nil || len(found) > 0 {
		t.Errorf("of a managed image: %v, %v", found, err)
	}
}

func TestImageWithoutRowIsLost(t *testing.T) {
	b := Builder{Dir: t.TempDir()}
	id := banger.NewID()
	dir := filepath.Join(b.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(`{"id":"`+id+`","name":"mine"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if lost, err := b.Lost(map[string]bool{id: true}); err != nil || len(lost) > 0 {
		t.Errorf("with its row: %v, %v", lost, err)
	}
	if lost, err := b.Lost(nil); err != nil || len(lost) != 1 || lost[0].Name != "mine" {
		t.Errorf("without: %v, %v", lost, err)
	}
}
