package qemu

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// batch is how many pages are read with one call: some that lie scattered cost
// about as much as others that do not.
const batch = 64

// copier gathers pages and copies them by the batch.
type copier struct {
	*memoryCopy
	pages []int64
	from  []unix.RemoteIovec // kept, since there are thousands of reads
	now   []fingerprint      // of the pages
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
	c.compare()
	for done := 0; done < len(c.pages); {
		n, zeroes, there := c.alike(done)
		if !there {
			if err := c.write(done, n, zeroes); err != nil {
				return fmt.Errorf("cannot write the machine's memory: %w", err)
			}
		}
		done += n
	}
	c.pages = c.pages[:0]
	return nil
}

// read reads the pages. It goes around /proc/PID/mem, which asks for the same
// rights and copies everything twice.
func (c *copier) read() error {
	c.from = c.from[:0]
	for i := 0; i < len(c.pages); {
		n := c.run(i)
		c.from = append(c.from, unix.RemoteIovec{Base: uintptr(c.ram.at + c.pages[i]*vmm.PageSize), Len: n * vmm.PageSize})
		i += n
	}
	if len(c.from) == 0 {
		return nil
	}
	want := len(c.pages) * vmm.PageSize
	into := []unix.Iovec{{Base: &c.buf[0]}}
	into[0].SetLen(want)
	n, err := unix.ProcessVMReadv(c.ram.pid, into, c.from, 0)
	if err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// run counts the pages from the i-th on that follow each other.
func (c *copier) run(i int) (n int) {
	for n = 1; i+n < len(c.pages) && c.pages[i+n] == c.pages[i]+int64(n); n++ {
	}
	return n
}

// compare takes the prints of the pages that were read.
func (c *copier) compare() {
	c.now = c.now[:0]
	for page := range slices.Chunk(c.buf[:len(c.pages)*vmm.PageSize], vmm.PageSize) {
		c.now = append(c.now, c.fingerprintOf(page))
	}
}

// alike counts the pages from the i-th on that follow each other and are to be
// treated alike: whether they are all zeroes, and whether the file has them as they
// are.
func (c *copier) alike(i int) (n int, zeroes, there bool) {
	zeroes, there = c.look(i)
	for n = 1; n < c.run(i); n++ {
		if z, t := c.look(i + n); z != zeroes || t != there {
			break
		}
	}
	return n, zeroes, there
}

func (c *copier) look(i int) (zeroes, there bool) {
	return c.now[i] == zero, c.now[i] == c.held[c.pages[i]]
}

// write puts pages where they belong; zeroes are holes.
func (c *copier) write(i, n int, zeroes bool) error {
	at, length := c.pages[i]*vmm.PageSize, int64(n)*vmm.PageSize
	copy(c.held[c.pages[i]:], c.now[i:i+n])
	c.writing.Lock()
	defer c.writing.Unlock()
	if zeroes {
		err := unix.Fallocate(int(c.to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	_, err := c.to.WriteAt(c.buf[i*vmm.PageSize:][:length], at)
	return err
}
