package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// churner writes to memory and to a disk without pause and remembers what it
// wrote, so that a machine that was saved in the middle of it can tell whether
// memory and disk still fit together.
type churner struct {
	memory []byte
	disk   int    // opened with O_DIRECT
	block  []byte // aligned, as O_DIRECT wants it
	blocks int64

	mu      sync.Mutex
	written uint64   // number of the last write
	pages   []uint64 // number of the last write to each page
	sectors []uint64 // and to each block of the disk
	err     error
	stop    chan struct{}
}

// newChurner takes size MiB of memory and the disk with this serial.
func newChurner(mib int, serial string) (*churner, error) {
	name, err := diskBySerial(serial)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/"+name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return nil, err
	}
	memory, err := anonymous((mib<<20 + pageSize))
	if err != nil {
		return nil, err
	}
	n := len(memory)/pageSize - 1
	return &churner{
		memory: memory[:n*pageSize], block: memory[n*pageSize:], disk: fd, blocks: size / pageSize,
		pages: make([]uint64, n), sectors: make([]uint64, size/pageSize), stop: make(chan struct{}),
	}, nil
}

func anonymous(size int) ([]byte, error) {
	return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func (c *churner) run() {
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		c.mu.Lock()
		if c.err == nil {
			c.err = c.write()
		}
		c.mu.Unlock()
	}
}

// pagesPerBlock is how many pages are written for one block: memory is faster.
const pagesPerBlock = 64

// write looks at each page and block before it writes to it: else what a
// restore got wrong would be gone before anybody asks.
func (c *churner) write() error {
	for range pagesPerBlock {
		page := int((c.written + 1) * 0x9e3779b97f4a7c15 >> 32 % uint64(len(c.pages)))
		if err := c.checkPage(page); err != nil {
			return err
		}
		c.written++
		stamp(c.page(page), c.written)
		c.pages[page] = c.written
	}
	block := int(c.written / pagesPerBlock % uint64(c.blocks))
	if err := c.checkBlock(block); err != nil {
		return err
	}
	stamp(c.block, c.written)
	if _, err := unix.Pwrite(c.disk, c.block, int64(block)*pageSize); err != nil {
		return fmt.Errorf("cannot write block %d: %w", block, err)
	}
	c.sectors[block] = c.written
	return nil
}

func (c *churner) page(i int) []byte { return c.memory[i*pageSize:][:pageSize] }

func (c *churner) checkPage(i int) error {
	if !stamped(c.page(i), c.pages[i]) {
		return fmt.Errorf("page %d is not what write %d made it", i, c.pages[i])
	}
	return nil
}

func (c *churner) checkBlock(i int) error {
	if _, err := unix.Pread(c.disk, c.block, int64(i)*pageSize); err != nil {
		return err
	}
	if !stamped(c.block, c.sectors[i]) {
		return fmt.Errorf("block %d is not what write %d of %d made it", i, c.sectors[i], c.written)
	}
	return nil
}

// stamp fills a page with words that all differ and depend on n.
func stamp(page []byte, n uint64) {
	for i := 0; i < len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], n*0x9e3779b97f4a7c15+uint64(i))
	}
}

func stamped(page []byte, n uint64) bool {
	for i := 0; i < len(page); i += 8 {
		want := n*0x9e3779b97f4a7c15 + uint64(i)
		if n == 0 {
			want = 0 // never written
		}
		if binary.LittleEndian.Uint64(page[i:]) != want {
			return false
		}
	}
	return true
}

// check compares memory and disk with what was written to them.
func (c *churner) check() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return "", c.err
	}
	for i := range c.pages {
		if err := c.checkPage(i); err != nil {
			return "", err
		}
	}
	for i := range c.sectors {
		if err := c.checkBlock(i); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("ok %d", c.written), nil
}

// hold is memory that is filled once.
var hold []byte

// fill takes size MiB more and fills them with what depends on seed; it answers
// their checksum.
func fill(request string) (string, error) {
	var mib int
	var seed uint64
	if _, err := fmt.Sscan(request, &mib, &seed); err != nil {
		return "", err
	}
	var err error
	if hold, err = anonymous(mib << 20); err != nil {
		return "", err
	}
	for i := 0; i < len(hold); i += pageSize {
		stamp(hold[i:][:pageSize], seed+uint64(i))
	}
	return checksum(), nil
}

// spare is memory that the kernel keeps to go on with.
const spare = 12 << 20

// fillAll takes all memory that is free and fills it; it answers how many MiB.
func fillAll() (string, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return "", err
	}
	memory, err := anonymous(int(info.Freeram)*int(info.Unit) - spare)
	if err != nil {
		return "", err
	}
	for i := 0; i < len(memory); i += pageSize {
		binary.LittleEndian.PutUint64(memory[i:], ^uint64(0))
	}
	return fmt.Sprintf("ok %d", len(memory)>>20), nil
}

func checksum() string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(hold)) }
