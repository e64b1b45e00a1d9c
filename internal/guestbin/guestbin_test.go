package guestbin

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

func TestBinaryIsWhatWasBuiltOrSaysHowToBuildIt(t *testing.T) {
	built, err := os.ReadFile("banger-guest")
	got, gotErr := Binary()
	if err != nil {
		if !errors.Is(gotErr, ErrMissing) {
			t.Errorf("without a guest binary: %v", gotErr)
		}
		return
	}
	if gotErr != nil || !bytes.Equal(got, built) {
		t.Errorf("got %d bytes and %v, want the %d bytes that were built", len(got), gotErr, len(built))
	}
}
