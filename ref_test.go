package banger

import (
	"strings"
	"testing"
)

func TestReferences(t *testing.T) {
	vms := []VM{
		{ID: "aa00000000000000000000000000000f", Name: "web"},
		{ID: "ab00000000000000000000000000000f", Name: "web-2"},
		{ID: "ac00000000000000000000000000000f", Name: "db"},
	}
	for ref, want := range map[string]string{
		"web": "web", "web-": "web-2", "db": "db", "d": "db", "aa": "web", "ab00000000000000000000000000000f": "web-2",
	} {
		if got, err := Resolve("VM", ref, vms); err != nil || got.Name != want {
			t.Errorf("%q: got %q, %v, want %q", ref, got.Name, err, want)
		}
	}
	if _, err := Resolve("VM", "nope", vms); CodeOf(err) != NotFound || len(HintsOf(err)) == 0 {
		t.Errorf("unknown: %v", err)
	}
	_, err := Resolve("VM", "we", vms)
	if CodeOf(err) != Conflict || !strings.Contains(err.Error(), "web (aa0000000000), web-2 (ab0000000000)") {
		t.Errorf("ambiguous: %v", err)
	}
	if _, err := Resolve("VM", "", vms); CodeOf(err) != BadRequest {
		t.Errorf("empty: %v", err)
	}
}

func TestErrorsKeepCodeAndHintsWhenWrapped(t *testing.T) {
	inner := Errorf(NoSpace, "the disk is full").Hint("make room")
	err := Wrap(inner, "cannot create devbox")
	if CodeOf(err) != NoSpace || err.Error() != "cannot create devbox: the disk is full" || HintsOf(err)[0] != "make room" {
		t.Fatalf("%v %v %v", CodeOf(err), err, HintsOf(err))
	}
	if Wrap(nil, "x") != nil {
		t.Fatal("nil wrapped")
	}
}

func TestStatesFollowEachOther(t *testing.T) {
	if !StateCreated.CanBecome(StateRunning) || StateStopped.CanBecome(StatePaused) || StateCreated.CanBecome(StateStopped) {
		t.Fatal("transitions are wrong")
	}
}
