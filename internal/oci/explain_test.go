package oci

import (
	"strings"
	"testing"

	"banger"
)

func TestARegistryThatIsNotReachedSaysHowToFindOut(t *testing.T) {
	ref, err := Parse("registry.invalid/org/app:1")
	if err != nil {
		t.Fatal(err)
	}
	err = explain(t.Context(), &lookupError{}, ref)
	if hints := banger.HintsOf(err); banger.CodeOf(err) != banger.Unavailable || len(hints) != 1 || !strings.HasPrefix(hints[0], "curl -I https://registry.invalid/v2/") {
		t.Errorf("%v, %q", err, hints)
	}
}

type lookupError struct{}

func (*lookupError) Error() string { return "dial tcp: lookup registry.invalid: no such host" }
