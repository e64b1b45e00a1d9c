package kmod

import "testing"

func TestNamesAreThoseOfTheKernelsTables(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/drivers/virtio/virtio-ring.ko": "virtio_ring",
		"snd-hda-intel.ko.xz":                  "snd_hda_intel",
		"tun":                                  "tun",
	} {
		if got := Name(file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	if got := Canonical("char-major-10-[2-4]-x"); got != "char_major_10_[2-4]_x" {
		t.Errorf("got %s", got)
	}
}
