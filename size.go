package banger

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Units of memory and disk sizes, in bytes.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
)

// Limits of a VM's shape. The host's memory bounds MemoryMiB as well.
const (
	MinDisk      = 1 * GiB
	MaxDisk      = 128 * GiB
	MinMemoryMiB = 128
)

var units = map[string]int64{
	"":  MiB,
	"K": KiB, "KB": KiB, "KIB": KiB,
	"M": MiB, "MB": MiB, "MIB": MiB,
	"G": GiB, "GB": GiB, "GIB": GiB,
	"T": TiB, "TB": TiB, "TIB": TiB,
}

// ParseSize reads a size such as "512", "512M", "8G" or "8GiB" into bytes. A
// number without a suffix counts MiB.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTIBkmgtib")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, known := units[strings.ToUpper(s[len(digits):])]
	if err != nil || n < 0 || !known || strings.HasPrefix(digits, "+") {
		return 0, Errorf(BadRequest, "bad size %q: not an integer with an optional K, M, G or T", s).
			Hint("examples: 512M, 8G, 2048 (MiB)")
	}
	if n > math.MaxInt64/unit {
		return 0, Errorf(BadRequest, "bad size %q: too large", s)
	}
	return n * unit, nil
}

// FormatSize renders bytes in the largest unit that divides them, as in "8G"
// or "1536M"; sizes below a KiB are in plain bytes ("12B").
func FormatSize(bytes int64) string {
	for _, u := range []struct {
		size   int64
		suffix string
	}{{TiB, "T"}, {GiB, "G"}, {MiB, "M"}, {KiB, "K"}} {
		if bytes >= u.size && bytes%u.size == 0 {
			return fmt.Sprintf("%d%s", bytes/u.size, u.suffix)
		}
	}
	return fmt.Sprintf("%dB", bytes)
}

// ApproxSize renders bytes with one decimal for people, as in "412.3M".
func ApproxSize(bytes int64) string {
	units := []string{"B", "K", "M", "G", "T"}
	f, i := float64(bytes), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%dB", bytes)
	}
	return fmt.Sprintf("%.1f%s", f, units[i])
}

// ValidateDiskSize refuses a disk size outside the limits.
func ValidateDiskSize(bytes int64) error {
	if bytes < MinDisk || bytes > MaxDisk {
		return Errorf(BadRequest, "bad disk size %s: it must be from %s to %s",
			FormatSize(bytes), FormatSize(MinDisk), FormatSize(MaxDisk)).
			Hint("for example --disk-size 8G")
	}
	return nil
}

// ValidateMemory refuses a memory size below the minimum or above hostMiB,
// the host's RAM.
func ValidateMemory(mib, hostMiB int64) error {
	if mib < MinMemoryMiB || mib > hostMiB {
		return Errorf(BadRequest, "bad memory size %d MiB: it must be from %d MiB to the host's %d MiB",
			mib, MinMemoryMiB, hostMiB).
			Hint("for example --memory 2G")
	}
	return nil
}
