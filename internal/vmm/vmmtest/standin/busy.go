package standin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unsafe"
)

// take takes so many bytes of memory that are free.
func (g *guest) take(size int) (span, error) {
	if g.cpu.Used+size > len(g.ram) {
		return span{}, errors.New("there is no memory left")
	}
	s := span{g.cpu.Used, size}
	g.cpu.Used += (size + pageSize - 1) / pageSize * pageSize
	return s, nil
}

func (g *guest) bytes(s span) []byte { return g.ram[s.At:][:s.Len] }

// words is a part of memory as numbers.
func (g *guest) words(s span) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&g.ram[s.At])), s.Len/8)
}

// useMemory carries out what is about much memory, or about memory and disks.
func (g *guest) useMemory(verb, rest string) (text string, err error) {
	var n int
	var seed uint64
	var serial string
	switch verb {
	case "fill":
		_, _ = fmt.Sscan(rest, &n, &seed)
		if g.cpu.Hold.Len != n<<20 {
			if g.cpu.Hold, err = g.take(n << 20); err != nil {
				return "", err
			}
		}
		for at := 0; at < n<<20; at += pageSize {
			stamp(g.bytes(g.cpu.Hold)[at:][:pageSize], seed+uint64(at))
		}
		return g.sum(), nil
	case "fillall":
		for at := g.cpu.Used; at < len(g.ram); at += pageSize {
			binary.LittleEndian.PutUint64(g.ram[at:], ^uint64(0))
		}
		return fmt.Sprintf("ok %d", (len(g.ram)-g.cpu.Used)>>20), nil
	case "sum":
		return g.sum(), nil
	case "churn":
		_, _ = fmt.Sscan(rest, &n, &serial)
		return "ok", g.startChurn(n, serial)
	case "check":
		return g.cpu.Churn.check(g)
	case "calm":
		g.cpu.Churn.On = false
		return "ok", nil
	case "sweep":
		_, _ = fmt.Sscan(rest, &n)
		return "ok", g.startSweep(n)
	}
	return g.cpu.Sweep.check(g)
}

func (g *guest) sum() string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(g.bytes(g.cpu.Hold))) }

// churn writes to memory and to a disk without pause and remembers what it wrote, in memory
// too: a machine that was saved in the middle of it can tell whether the three fit together.
type churn struct {
	On      bool
	Pages   span // that are written to
	Last    span // for each of them, the number of the last write
	Sectors span // and for each block of the disk
	Serial  string
	Written uint64
	Wrong   string
}

// pagesPerBlock is how many pages are written for one block.
const pagesPerBlock = 64

func (g *guest) startChurn(mib int, serial string) error {
	d, err := g.disk(serial)
	if err != nil {
		return err
	}
	c := &churn{On: true, Serial: serial}
	var err1, err2, err3 error
	c.Pages, err1 = g.take(mib << 20)
	c.Last, err2 = g.take(mib << 20 / pageSize * 8)
	c.Sectors, err3 = g.take(int(d.size) / pageSize * 8)
	g.cpu.Churn = c
	return errors.Join(err1, err2, err3)
}

// write looks at each page and block before it writes to it.
func (c *churn) write(g *guest) {
	last, sectors := g.words(c.Last), g.words(c.Sectors)
	for range pagesPerBlock {
		page := int((c.Written + 1) * 0x9e3779b97f4a7c15 >> 32 % uint64(len(last)))
		c.see(g.page(c.Pages, page), last[page], "page", page)
		if c.Wrong != "" {
			return
		}
		c.Written++
		stamp(g.page(c.Pages, page), c.Written)
		last[page] = c.Written
	}
	block := int(c.Written / pagesPerBlock % uint64(len(sectors)))
	d, _ := g.disk(c.Serial)
	c.seeBlock(d, sectors, block)
	text := make([]byte, pageSize)
	stamp(text, c.Written)
	if err := d.write(int64(block)*pageSize, text); err != nil {
		c.Wrong = err.Error()
	}
	sectors[block] = c.Written
}

func (g *guest) page(s span, i int) []byte { return g.bytes(s)[i*pageSize:][:pageSize] }

func (c *churn) see(page []byte, n uint64, what string, i int) {
	if c.Wrong == "" && !stamped(page, n) {
		c.Wrong = fmt.Sprintf("%s %d is not what write %d of %d made it", what, i, n, c.Written)
	}
}

func (c *churn) seeBlock(d *drive, sectors []uint64, i int) {
	text, err := d.read(int64(i)*pageSize, pageSize)
	if err != nil && c.Wrong == "" {
		c.Wrong = err.Error()
	}
	c.see(text, sectors[i], "block", i)
}

// check compares memory and disk with what was written to them.
func (c *churn) check(g *guest) (string, error) {
	d, err := g.disk(c.Serial)
	if err != nil {
		return "", err
	}
	for i, n := range g.words(c.Last) {
		c.see(g.page(c.Pages, i), n, "page", i)
	}
	sectors := g.words(c.Sectors)
	for i := range sectors {
		c.seeBlock(d, sectors, i)
	}
	if c.Wrong != "" {
		return "", errors.New(c.Wrong)
	}
	return fmt.Sprintf("ok %d", c.Written), nil
}

// stamp fills a page with words that all differ and depend on n.
//
//go:norace
func stamp(page []byte, n uint64) {
	for i := 0; i < len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], n*0x9e3779b97f4a7c15+uint64(i))
	}
}

// stamped says whether a page is as stamp made it; by 0 it never was.
//
//go:norace
func stamped(page []byte, n uint64) bool {
	for i := 0; i < len(page); i += 8 {
		want := n*0x9e3779b97f4a7c15 + uint64(i)
		if n == 0 {
			want = 0
		}
		if binary.LittleEndian.Uint64(page[i:]) != want {
			return false
		}
	}
	return true
}

// sweep goes over its memory again and again and leaves a number in each page, one higher in
// every round.
type sweep struct {
	Pages span
	Round uint64
	Next  int
	Wrong string
}

const pagesPerSweep = 256

func (g *guest) startSweep(mib int) (err error) {
	s := &sweep{}
	s.Pages, err = g.take(mib << 20)
	g.cpu.Sweep = s
	return err
}

func (s *sweep) sweep(g *guest, pages int) {
	for range pages {
		if s.Next == 0 {
			s.Round++
		}
		if s.see(g, s.Next, s.Round-1); s.Wrong != "" {
			return
		}
		binary.LittleEndian.PutUint64(g.page(s.Pages, s.Next), s.Round)
		s.Next = (s.Next + 1) % (s.Pages.Len / pageSize)
	}
}

func (s *sweep) see(g *guest, i int, want uint64) {
	if got := binary.LittleEndian.Uint64(g.page(s.Pages, i)); got != want && s.Wrong == "" {
		s.Wrong = fmt.Sprintf("page %d is of round %d, not %d", i, got, want)
	}
}

func (s *sweep) check(g *guest) (string, error) {
	for i := range s.Pages.Len / pageSize {
		want := s.Round
		if s.Next != 0 && i >= s.Next {
			want--
		}
		s.see(g, i, want)
	}
	if s.Wrong != "" {
		return "", errors.New(s.Wrong)
	}
	return fmt.Sprintf("ok %d", s.Round), nil
}
