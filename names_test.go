package banger

import (
	"strings"
	"testing"
)

func TestVMNamesAreRefusedWithThePositionOfWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"devbox", ""},
		{"a", ""},
		{"web-2", ""},
		{strings.Repeat("a", 63), ""},
		{"", "it is empty"},
		{strings.Repeat("a", 64), "64 characters"},
		{"Devbox", `'D' at position 1`},
		{"dev box", `' ' at position 4`},
		{"devböx", `'ö' at position 5`},
		{"dev_box", `'_' at position 4`},
		{"-dev", "position 1"},
		{"dev-", "position 4"},
		{" dev", `' ' at position 1`},
		{"host", "the host itself"},
		{strings.Repeat("ab", 16), "form of an id"},
	} {
		err := ValidateVMName(c.name)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || CodeOf(err) != BadRequest || len(HintsOf(err)) == 0 {
			t.Errorf("%q: got %v, want %q and a hint", c.name, err, c.want)
		}
	}
}

func TestImageNamesCannotLeaveTheirDirectory(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "-a", "a b", strings.Repeat("x", 129)} {
		if ValidateImageName(bad) == nil || ValidateKernelName(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, good := range []string{"debian-bookworm", "my_image.v2", "A"} {
		if err := ValidateImageName(good); err != nil {
			t.Error(err)
		}
	}
}

func TestGeneratedNamesAreValidAndNeverTaken(t *testing.T) {
	taken := map[string]bool{}
	for range 5000 { // more than there are pairs
		name := GenerateName(func(n string) bool { return taken[n] })
		if err := ValidateVMName(name); err != nil || taken[name] {
			t.Fatalf("%q: taken %v, %v", name, taken[name], err)
		}
		taken[name] = true
	}
}

func TestIDsAreIDs(t *testing.T) {
	if id := NewID(); !IsID(id) || id == NewID() || len(ShortID(id)) != ShortIDLen {
		t.Fatal(id)
	}
	for _, s := range []string{"", "xyz", strings.Repeat("G", 32), strings.Repeat("A", 32)} {
		if IsID(s) {
			t.Errorf("%q passes for an id", s)
		}
	}
}
