package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// batch is how many pages are read with one call: some that lie scattered cost
// about as much as others that do not.
const batch = 64

// copier gathers pages and copies them by the batch.
type copier struct {
	ram     ram
	to      *os.File
	compare bool // write only what to does not hold already
	pages   []int64
	now     [batch * vmm.PageSize]byte // the pages as they are
	held    [batch * vmm.PageSize]byte // and as they are in the file
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
	if c.compare {
		if err := c.readBack(); err != nil {
			return fmt.Errorf("cannot read what was saved of the machine's memory: %w", err)
		}
	}
	for done := 0; done < len(c.pages); {
		n, what := c.alike(done)
		if err := c.write(done, n, what); err != nil {
			return fmt.Errorf("cannot write the machine's memory: %w", err)
		}
		done += n
	}
	c.pages = c.pages[:0]
	return nil
}

// read reads the pages. It goes around /proc/PID/mem, which asks for the same
// rights and copies everything twice.
func (c *copier) read() error {
	var from []unix.RemoteIovec
	for i := 0; i < len(c.pages); {
		n := c.run(i)
		from = append(from, unix.RemoteIovec{Base: uintptr(c.ram.at + c.pages[i]*vmm.PageSize), Len: n * vmm.PageSize})
		i += n
	}
	if len(from) == 0 {
		return nil
	}
	want := len(c.pages) * vmm.PageSize
	into := []unix.Iovec{{Base: &c.now[0]}}
	into[0].SetLen(want)
	n, err := unix.ProcessVMReadv(c.ram.pid, into, from, 0)
	if err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readBack reads the same pages of the file. A map of it would be a little
// faster, but would make pages of its holes.
func (c *copier) readBack() error {
	for i := 0; i < len(c.pages); {
		n := c.run(i)
		if _, err := c.to.ReadAt(c.held[i*vmm.PageSize:(i+n)*vmm.PageSize], c.pages[i]*vmm.PageSize); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// run counts the pages from the i-th on that follow each other.
func (c *copier) run(i int) (n int) {
	for n = 1; i+n < len(c.pages) && c.pages[i+n] == c.pages[i]+int64(n); n++ {
	}
	return n
}

// content is what must be done with a page.
type content int

const (
	data content = iota
	zero
	same // as in the file
)

// alike counts the pages from the i-th on that follow each other and are to be
// treated alike.
func (c *copier) alike(i int) (n int, what content) {
	what = c.content(i)
	for n = 1; n < c.run(i); n++ {
		if c.content(i+n) != what {
			break
		}
	}
	return n, what
}

func (c *copier) content(i int) content {
	at, end := i*vmm.PageSize, (i+1)*vmm.PageSize
	switch {
	case c.compare && bytes.Equal(c.now[at:end], c.held[at:end]):
		return same
	case vmm.IsZero(c.now[at:end]):
		return zero
	}
	return data
}

// write puts pages where they belong; zeroes are holes.
func (c *copier) write(i, n int, what content) error {
	at, length := c.pages[i]*vmm.PageSize, int64(n)*vmm.PageSize
	switch what {
	case same:
		return nil
	case zero:
		err := unix.Fallocate(int(c.to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	_, err := c.to.WriteAt(c.now[i*vmm.PageSize:(i+n)*vmm.PageSize], at)
	return err
}
