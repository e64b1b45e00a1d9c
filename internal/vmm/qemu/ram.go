package qemu

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"

	"banger/internal/vmm"
)

// ram is where in QEMU's address space the machine's memory is.
type ram struct {
	pid  int
	at   int64
	size int64
}

// hvaPattern reads the answer of gpa2hva. The guest's address 0 is the first
// byte of memory, and the host's map of it has no gap.
//
// It is compiled where it is needed, as all patterns are: the same binary is each
// command that a person waits for.
var hvaPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^Host virtual address for 0x0 \(` + ramID + `\) is 0x([0-9a-f]+)\s*$`)
})

// findRAM asks QEMU where the memory is; only the text monitor knows.
func (m *machine) findRAM(ctx context.Context) (ram, error) {
	var said string
	if err := m.query(ctx, "human-monitor-command", object{"command-line": "gpa2hva 0"}, &said); err != nil {
		return ram{}, err
	}
	match := hvaPattern().FindStringSubmatch(said)
	if match == nil {
		return ram{}, fmt.Errorf("QEMU does not say where its memory is: %q", said)
	}
	at, err := strconv.ParseInt(match[1], 16, 64)
	return ram{pid: m.PID(), at: at, size: m.cfg.MemoryMiB << 20}, err
}

// Entries of /proc/PID/pagemap.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61 // or shared
	entrySize   = 8
)

// openMap opens the page map of QEMU.
func (r ram) openMap() (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/pagemap", r.pid)) }

// ownPages calls do with the number of each page of a span that is QEMU's own,
// in order.
func (r ram) ownPages(pagemap *os.File, first int64, do func(page int64) error) error {
	var buf [span * entrySize]byte
	entries := buf[:min(span, r.size/vmm.PageSize-first)*entrySize]
	if _, err := pagemap.ReadAt(entries, (r.at/vmm.PageSize+first)*entrySize); err != nil {
		return fmt.Errorf("cannot read the page map: %w", err)
	}
	for i := range int64(len(entries) / entrySize) {
		entry := binary.LittleEndian.Uint64(entries[i*entrySize:])
		if entry&(pagePresent|pageSwapped) == 0 || entry&pageOfFile != 0 {
			continue
		}
		if err := do(first + i); err != nil {
			return err
		}
	}
	return nil
}
