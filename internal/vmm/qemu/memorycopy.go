package qemu

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// content is what a page of the file holds.
type content uint8

const (
	unknown content = iota // not written by us
	zero
	data
)

// memoryCopy copies a machine's memory into a file, in passes: the first while
// the guest runs, the last while it stands still. A page that is QEMU's own
// remains so, since nothing takes memory back from a guest; so a pass spares
// the next one all that did not change, and takes no longer if the guest is busy.
type memoryCopy struct {
	ram  ram
	to   *os.File
	held []content // by page
	view []byte    // the file, mapped; only data may be touched, since a hole would become a page
}

// copyTo begins a copy into an empty file.
func (r ram) copyTo(to *os.File) (*memoryCopy, error) {
	if err := to.Truncate(r.size); err != nil {
		return nil, err
	}
	view, err := unix.Mmap(int(to.Fd()), 0, int(r.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map the memory's file: %w", err)
	}
	return &memoryCopy{ram: r, to: to, held: make([]content, r.size/vmm.PageSize), view: view}, nil
}

// close takes the map away, with which the file could not be sealed.
func (m *memoryCopy) close() error { return unix.Munmap(m.view) }

// takeBase copies the memory that the machine was restored from, if any, where it
// is still the machine's: what a page of QEMU's own has replaced, a pass copies.
func (m *memoryCopy) takeBase(base *os.File) error {
	if base == nil {
		return nil
	}
	pagemap, err := m.ram.openMap()
	if err != nil {
		return err
	}
	defer pagemap.Close()
	own := make([]bool, len(m.held))
	mark := func(page int64) error {
		own[page] = true
		return nil
	}
	for first := int64(0); first < int64(len(own)); first += span {
		if err := m.ram.ownPages(pagemap, first, mark); err != nil {
			return err
		}
	}
	return vmm.CopySparseBut(m.to, base, func(page int64) bool { return own[page] })
}

// span is how many pages a worker takes at a time.
const span = 4 << 10

// pass writes QEMU's own pages to their places in the file, if they are not
// there already: all that was ever touched of a machine that booted, all that
// differs from the saved memory of one that was restored.
func (m *memoryCopy) pass(ctx context.Context, workers int) error {
	pagemap, err := m.ram.openMap()
	if err != nil {
		return err
	}
	defer pagemap.Close()
	var taken atomic.Int64
	var work errgroup.Group
	for range workers {
		work.Go(func() error { return m.work(ctx, pagemap, &taken) })
	}
	return work.Wait()
}

// work does spans until all are taken.
func (m *memoryCopy) work(ctx context.Context, pagemap *os.File, taken *atomic.Int64) (err error) {
	// A file on a broken disk cannot be read back, and a map has no other way to say so.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		caught := recover()
		if fault, is := caught.(interface{ Addr() uintptr }); is {
			err = fmt.Errorf("cannot read what was saved of the machine's memory: %v", fault)
		} else if caught != nil {
			panic(caught)
		}
	}()
	c := copier{memoryCopy: m}
	for {
		first := taken.Add(span) - span
		if first >= m.ram.size/vmm.PageSize {
			return c.flush()
		}
		if ctx.Err() != nil {
			return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
		}
		if err := m.ram.ownPages(pagemap, first, c.add); err != nil {
			return err
		}
	}
}

// warm has the kernel set up the map where there is data, which costs the next
// pass more than to compare. A kernel before 5.14 cannot, and the pass does.
func (m *memoryCopy) warm() {
	for i := 0; i < len(m.held); {
		n := 1
		for i+n < len(m.held) && m.held[i+n] == m.held[i] {
			n++
		}
		if m.held[i] == data {
			_ = unix.Madvise(m.view[i*vmm.PageSize:(i+n)*vmm.PageSize], unix.MADV_POPULATE_READ)
		}
		i += n
	}
}
