package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"

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
		n, what, there := c.alike(done)
		if !there {
			if err := c.write(done, n, what); err != nil {
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

// alike counts the pages from the i-th on that follow each other and are to be
// treated alike: what they hold, and whether the file has them as they are.
func (c *copier) alike(i int) (n int, what content, there bool) {
	what, there = c.look(i)
	for n = 1; n < c.run(i); n++ {
		if next, nextThere := c.look(i + n); next != what || nextThere != there {
			break
		}
	}
	return n, what, there
}

func (c *copier) look(i int) (what content, there bool) {
	page, now := c.pages[i], c.buf[i*vmm.PageSize:][:vmm.PageSize]
	held := c.held[page]
	if held == data && bytes.Equal(now, c.view[page*vmm.PageSize:][:vmm.PageSize]) {
		return data, true
	}
	if vmm.IsZero(now) {
		return zero, held == zero
	}
	return data, false
}

// write puts pages where they belong; zeroes are holes.
func (c *copier) write(i, n int, what content) error {
	at, length := c.pages[i]*vmm.PageSize, int64(n)*vmm.PageSize
	for page := range c.held[c.pages[i]:][:n] {
		c.held[c.pages[i]+int64(page)] = what
	}
	if what == zero {
		err := unix.Fallocate(int(c.to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	_, err := c.to.WriteAt(c.buf[i*vmm.PageSize:][:length], at)
	return err
}
