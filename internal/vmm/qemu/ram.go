package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

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
	entriesRead = 32 << 10 // at a time
)

// ownPages calls do with each page, by number and in order, that is QEMU's own: all that
// was ever touched of a machine that booted, all that differs from the saved
// memory of one that was restored.
func (r ram) ownPages(ctx context.Context, do func(page int64) error) error {
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", r.pid))
	if err != nil {
		return err
	}
	defer pagemap.Close()
	entries := make([]byte, entriesRead*entrySize)
	for first, pages := int64(0), r.size/vmm.PageSize; first < pages; first += entriesRead {
		entries = entries[:min(entriesRead, pages-first)*entrySize]
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
		if ctx.Err() != nil {
			return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
		}
	}
	return nil
}

// copyOwn writes QEMU's own pages to their places in a file that holds all
// others already.
func (r ram) copyOwn(ctx context.Context, to *os.File) error {
	c := copier{ram: r, to: to}
	if err := r.ownPages(ctx, c.add); err != nil {
		return err
	}
	return c.flush()
}

// batch is how many pages are read with one call: some that lie scattered cost
// about as much as others that do not.
const batch = 256

// copier gathers pages and copies them by the batch.
type copier struct {
	ram   ram
	to    *os.File
	pages []int64
	buf   [batch * vmm.PageSize]byte
}

func (c *copier) add(page int64) error {
	if c.pages = append(c.pages, page); len(c.pages) < batch {
		return nil
	}
	return c.flush()
}

func (c *copier) flush() error {
	if err := c.read(); err != nil {
		return fmt.Errorf("cannot read the machine's memory: %w", err)
	}
	for done := 0; done < len(c.pages); {
		n, zero := c.alike(done)
		if err := c.write(done, n, zero); err != nil {
			return fmt.Errorf("cannot write the machine's memory: %w", err)
		}
		done += n
	}
	c.pages = c.pages[:0]
	return nil
}

// read fills the buffer. It goes around /proc/PID/mem, which asks for the same
// rights and copies everything twice.
func (c *copier) read() error {
	var from []unix.RemoteIovec
	for i, page := range c.pages {
		if i > 0 && page == c.pages[i-1]+1 {
			from[len(from)-1].Len += vmm.PageSize
			continue
		}
		from = append(from, unix.RemoteIovec{Base: uintptr(c.ram.at + page*vmm.PageSize), Len: vmm.PageSize})
	}
	if len(from) == 0 {
		return nil
	}
	want := len(c.pages) * vmm.PageSize
	into := []unix.Iovec{{Base: &c.buf[0]}}
	into[0].SetLen(want)
	n, err := unix.ProcessVMReadv(c.ram.pid, into, from, 0)
	if err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// alike counts the pages from the i-th on that follow each other and are all
// zero or all not.
func (c *copier) alike(i int) (n int, zero bool) {
	zero = vmm.IsZero(c.page(i))
	for n = 1; i+n < len(c.pages); n++ {
		if c.pages[i+n] != c.pages[i]+int64(n) || vmm.IsZero(c.page(i+n)) != zero {
			break
		}
	}
	return n, zero
}

func (c *copier) page(i int) []byte { return c.buf[i*vmm.PageSize : (i+1)*vmm.PageSize] }

// write puts pages where they belong; zeroes are holes.
func (c *copier) write(i, n int, zero bool) error {
	at, length := c.pages[i]*vmm.PageSize, int64(n)*vmm.PageSize
	if zero {
		err := unix.Fallocate(int(c.to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	_, err := c.to.WriteAt(c.buf[i*vmm.PageSize:(i+n)*vmm.PageSize], at)
	return err
}
