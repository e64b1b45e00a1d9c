package vmm

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWaitedIsOfTheThreadThatWaitedLongest(t *testing.T) {
	tasks := t.TempDir()
	for thread, text := range map[string]string{"1": "90000000000 1000 5\n", "2": "5000000 6000000000 7\n", "3": "no numbers"} {
		if err := os.MkdirAll(filepath.Join(tasks, thread), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tasks, thread, "schedstat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := waited(tasks); got != 6*time.Second {
		t.Errorf("the longest wait is %v", got)
	}
}
