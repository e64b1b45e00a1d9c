package banger

import "testing"

func TestHintsNameTheirVM(t *testing.T) {
	for hint, want := range map[string]string{
		"banger vm restart VM starts the newest one":     "banger vm restart devbox starts the newest one",
		"banger vm cp VM:/root/repo DIR copies it":       "banger vm cp devbox:/root/repo DIR copies it",
		"banger vm kill devbox ends the VM":              "banger vm kill devbox ends the VM",
		"VMs are listed by banger ps, and a VMM is none": "VMs are listed by banger ps, and a VMM is none",
	} {
		if got := NameVM(hint, "devbox"); got != want {
			t.Errorf("%q became %q", hint, got)
		}
		if got := NameVM(hint, ""); got != hint {
			t.Errorf("without a name %q became %q", hint, got)
		}
	}
}
