package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVerdictOfABusyHostIsFoundAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := Probe{Binary: file, Kernel: file, Cache: filepath.Join(dir, "cache")}
	for _, c := range []struct {
		at, until time.Time
		known     bool
	}{
		{time.Now(), time.Time{}, true},
		{time.Now(), time.Now().Add(time.Minute), true},
		{time.Now().Add(-time.Hour), time.Now().Add(-time.Minute), false},
		{time.Now().Add(time.Hour), time.Now().Add(2 * time.Hour), false}, // the clock was set back
	} {
		p.keep(Verdict{State: Unusable, At: c.at, Until: c.until})
		if v, known := p.recall(); known != c.known {
			t.Errorf("of %v until %v: %+v, %v", c.at, c.until, v, known)
		}
	}
}

func TestStarvedIsWhoWaitedHalfTheTime(t *testing.T) {
	now := time.Now()
	if v := unusable("x").unlessStarved(os.Getpid(), now.Add(-time.Hour)); !v.Until.IsZero() || v.Why != "x" {
		t.Errorf("a process that did not wait an hour: %+v", v)
	}
	if v := unusable("x").unlessStarved(os.Getpid(), now.Add(time.Hour)); v.Until.IsZero() || !strings.Contains(v.Why, "busy") {
		t.Errorf("one that waited longer than there was time: %+v", v)
	}
}
