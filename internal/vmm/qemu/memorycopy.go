package qemu

import (
	"context"
	"hash/maphash"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/vmm"
)

// fingerprint tells apart what pages of the file hold. Two pages that differ have the
// same one once in 2^64 times, and no guest can know which: the seed is new for each
// copy.
type fingerprint uint64

const (
	unknown fingerprint = iota // not written by us
	zero
	data // of a page that is not all zeroes, or more
)

// memoryCopy copies a machine's memory into a file, in passes: the first while
// the guest runs, the last while it stands still. A page that is QEMU's own
// remains so, since nothing takes memory back from a guest; so a pass spares
// the next one all that did not change, and takes no longer if the guest is busy.
//
// What the file holds is known by its fingerprint. To read it back instead, through a
// map, takes a quarter longer, and the map must be set up before.
type memoryCopy struct {
	ram  ram
	to   *os.File
	held []fingerprint // by page
	seed maphash.Seed

	// writing is held while the file is written. The kernel lets in one at a time
	// too, but has the others spin; here they read on as soon as they can.
	writing sync.Mutex
}

// copyTo begins a copy into an empty file.
func (r ram) copyTo(to *os.File) (*memoryCopy, error) {
	if err := to.Truncate(r.size); err != nil {
		return nil, err
	}
	return &memoryCopy{ram: r, to: to, held: make([]fingerprint, r.size/vmm.PageSize), seed: maphash.MakeSeed()}, nil
}

func (m *memoryCopy) fingerprintOf(page []byte) fingerprint {
	if vmm.IsZero(page) {
		return zero
	}
	return max(fingerprint(maphash.Bytes(m.seed, page)), data)
}

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
func (m *memoryCopy) work(ctx context.Context, pagemap *os.File, taken *atomic.Int64) error {
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
