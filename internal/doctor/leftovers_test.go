package doctor

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/store"
)

func TestAPromotionThatWasNotFinishedIsTheDaemonsToFinish(t *testing.T) {
	e := newExam(t)
	e.Pause = time.Millisecond
	half, none := banger.NewID(), banger.NewID()
	write(t, filepath.Join(e.dirs.Image(half), "image.json"), `{"id":"`+half+`","name":"half"}`)
	write(t, filepath.Join(e.dirs.Image(none), "image.json"), `{"id":"`+none+`","name":"none","registered":{"path":"/home/me/f"}}`)
	rows, err := store.Open(t.Context(), e.dirs.Database())
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]string{"half": half, "none": none} {
		if err := rows.UpsertImage(t.Context(), banger.Image{ID: id, Name: name, RootfsPath: "/home/me/f"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	e.world(t.Context())
	if len(e.rows) != 1 || !strings.Contains(e.rows[0].Detail, "the promotion of the image half") {
		t.Fatalf("found %+v", e.rows)
	}
	if fix := e.rows[0].Fix; fix == nil || fix.Action != RestartDaemon {
		t.Errorf("to be repaired by %+v", fix)
	}
}
