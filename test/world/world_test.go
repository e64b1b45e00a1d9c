package world

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSharedWorldIsOfOneRunAtATime(t *testing.T) {
	root, cache := t.TempDir(), t.TempDir()
	t.Setenv("BANGER_TEST_CACHE", cache)
	bin := filepath.Join(root, "bin", "banger")
	if err := os.Mkdir(filepath.Dir(bin), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, []byte("#!/bin/sh\necho \"$@\" >>$HOME/asked\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := OpenShared(root, "mine")
	if err != nil {
		t.Fatal(err)
	}
	asked := func() string {
		text, err := os.ReadFile(filepath.Join(cache, "mine", "asked"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := asked()
	if _, err := OpenShared(root, "mine"); err == nil || !strings.Contains(err.Error(), "BANGER_TEST_CACHE") {
		t.Errorf("a second run: %v", err)
	}
	if now := asked(); now != before {
		t.Errorf("the second run asked for more than\n%s\nin all\n%s", before, now)
	}
	other, err := OpenShared(root, "other")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	first.Close()
	again, err := OpenShared(root, "mine")
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	again.Close()
}
