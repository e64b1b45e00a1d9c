package banger

import "testing"

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"512": 512 * MiB, "0": 0, "512M": 512 * MiB, "8G": 8 * GiB, "8GiB": 8 * GiB, "8gb": 8 * GiB,
		"1T": TiB, "4096K": 4 * MiB,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "G", "-1", "+1", "1.5G", "1X", "8GiBs", "1 G", "9999999999999T", "0x10", "1GG"} {
		if got, err := ParseSize(s); CodeOf(err) != BadRequest {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
}

func TestSizesAreShownInTheLargestUnitThatFits(t *testing.T) {
	for bytes, want := range map[int64]string{8 * GiB: "8G", 1536 * MiB: "1536M", 12: "12B", 0: "0B", TiB: "1T"} {
		if got := FormatSize(bytes); got != want {
			t.Errorf("%d: got %s, want %s", bytes, got, want)
		}
	}
	if got := ApproxSize(432345678); got != "412.3M" {
		t.Error(got)
	}
}

func TestShapesOutsideTheLimitsAreRefused(t *testing.T) {
	for _, bytes := range []int64{0, MinDisk - 1, MaxDisk + 1, -1} {
		if ValidateDiskSize(bytes) == nil {
			t.Errorf("a disk of %d bytes is accepted", bytes)
		}
	}
	if ValidateMemory(127, 4096) == nil || ValidateMemory(4097, 4096) == nil || ValidateMemory(128, 4096) != nil {
		t.Error("memory limits are wrong")
	}
}
