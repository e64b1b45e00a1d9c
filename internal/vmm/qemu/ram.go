package qemu

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"banger"
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
var hvaPattern = regexp.MustCompile(`^Host virtual address for 0x0 \(` + ramID + `\) is 0x([0-9a-f]+)\s*$`)

// findRAM asks QEMU where the memory is; only the text monitor knows.
func (m *machine) findRAM(ctx context.Context) (ram, error) {
	var said string
	if err := m.query(ctx, "human-monitor-command", object{"command-line": "gpa2hva 0"}, &said); err != nil {
		return ram{}, err
	}
	match := hvaPattern.FindStringSubmatch(said)
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

// span is how many pages a worker takes at a time.
const span = 4 << 10

// copyOwn writes QEMU's own pages to their places in a file: all that was ever
// touched of a machine that booted, all that differs from the saved memory of
// one that was restored. With compare it writes only what the file does not
// hold already, which leaves a third of the time: two workers can read at once,
// where only one can write.
//
// A page that is QEMU's own remains so: nothing takes memory back from a guest.
// So one pass while it runs spares the next one, when it stands still, most of
// the work, and takes no longer if the guest is busy.
func (r ram) copyOwn(ctx context.Context, to *os.File, compare bool, workers int) error {
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", r.pid))
	if err != nil {
		return err
	}
	defer pagemap.Close()
	var taken atomic.Int64
	var work errgroup.Group
	for range workers {
		work.Go(func() error {
			c := copier{ram: r, to: to, compare: compare}
			for {
				first := taken.Add(span) - span
				if first >= r.size/vmm.PageSize {
					return c.flush()
				}
				if ctx.Err() != nil {
					return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
				}
				if err := r.ownPages(pagemap, first, c.add); err != nil {
					return err
				}
			}
		})
	}
	return work.Wait()
}

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
