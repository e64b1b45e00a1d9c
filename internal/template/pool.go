package template

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
	"banger/internal/vmm"
)

// keep is how long a memory that nobody forks stays in RAM, and most how many
// do.
const (
	keep = 10 * time.Minute
	most = 4
)

// Pool holds the memories of templates in use, sealed: one copy in RAM serves
// all forks, and no VMM can change it. Its zero value with a Cache is ready.
type Pool struct {
	Cache Cache

	mu   sync.Mutex
	held map[string]*held
}

// held is a template that was found whole.
type held struct {
	Template
	memory *os.File
	stamps [3]stamp
	used   time.Time
	expiry *time.Timer
}

// stamp changes when a file does.
type stamp struct {
	inode uint64
	size  int64
	mtime time.Time
}

func stampsOf(t Template) (s [3]stamp, err error) {
	for i, path := range []string{t.Memory(), t.State(), t.Disk()} {
		info, err := os.Stat(path)
		if err != nil {
			return s, err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			s[i].inode = st.Ino
		}
		s[i].size, s[i].mtime = info.Size(), info.ModTime()
	}
	return s, nil
}

// Fork is a template that is about to be forked.
type Fork struct {
	Template
	Memory *os.File // sealed; the fork's own descriptor
}

// Close lets go of the memory.
func (f *Fork) Close() error { return f.Memory.Close() }

// Open gives the template of a key: not_found where there is none. One that is
// damaged is removed, and is not there either. Only the first Open reads the
// files.
func (p *Pool) Open(ctx context.Context, id string) (*Fork, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, err := p.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	fd, err := dup(h.memory)
	if err != nil {
		return nil, err
	}
	h.used = time.Now()
	h.expiry.Reset(keep)
	p.Cache.use(h.Template)
	return &Fork{h.Template, fd}, nil
}

// hold finds the template in memory, or takes it there. The caller has mu.
func (p *Pool) hold(ctx context.Context, id string) (*held, error) {
	h := p.held[id]
	if h != nil {
		if now, err := stampsOf(h.Template); err == nil && now == h.stamps {
			return h, nil
		}
		p.drop(id)
	}
	t, err := p.Cache.Get(id)
	if banger.CodeOf(err) == banger.NotFound {
		return nil, err
	}
	if err == nil {
		h, err = load(ctx, t)
	}
	if err != nil && ctx.Err() != nil { // what was loaded all the same is kept
		return nil, banger.Errorf(banger.Cancelled, "%w", ctx.Err())
	}
	if err != nil {
		if removed := p.Cache.Remove(id); removed != nil {
			return nil, removed
		}
		return nil, banger.Errorf(banger.NotFound, "the template %s was damaged and is removed: %w", id, err)
	}
	if p.held == nil {
		p.held = map[string]*held{}
	}
	if len(p.held) >= most {
		p.drop(p.oldest())
	}
	h.expiry = time.AfterFunc(keep, func() { p.expire(h) })
	p.held[id] = h
	return h, nil
}

// load takes a template's memory into RAM and finds out whether all is what
// was saved. What was read is what is used: the sum is the copy's.
func load(ctx context.Context, t Template) (_ *held, err error) {
	h := &held{Template: t}
	if h.stamps, err = stampsOf(t); err != nil {
		return nil, err
	}
	if err := verifyBeside(ctx, t); err != nil {
		return nil, err
	}
	if h.memory, err = vmm.SealedCopy(t.Memory()); err != nil {
		return nil, err
	}
	if sum, err := vmm.Checksum(h.memory); err != nil || sum != t.Sums.Memory {
		h.memory.Close()
		return nil, damaged("memory", err)
	}
	return h, nil
}

// Verify reads a whole template and compares it with what was saved.
func Verify(ctx context.Context, t Template) error {
	if err := verifyBeside(ctx, t); err != nil {
		return err
	}
	if sum, err := sumOf(t.Memory()); err != nil || sum != t.Sums.Memory {
		return damaged("memory", err)
	}
	return nil
}

// verifyBeside is about what lies beside the memory.
func verifyBeside(ctx context.Context, t Template) error {
	if sum, err := artifact.SHA256(ctx, t.State()); err != nil || sum != t.Sums.State {
		return damaged("state", err)
	}
	if sum, err := sumOf(t.Disk()); err != nil || sum != t.Sums.Disk {
		return damaged("disk", err)
	}
	return nil
}

func damaged(part string, err error) error {
	if err == nil {
		return fmt.Errorf("its %s is not what was saved", part)
	}
	return fmt.Errorf("its %s cannot be compared with what was saved: %w", part, err)
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return vmm.Checksum(f)
}

func (p *Pool) oldest() (id string) {
	for other, h := range p.held {
		if id == "" || h.used.Before(p.held[id].used) {
			id = other
		}
	}
	return id
}

func (p *Pool) expire(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[h.ID] == h && time.Since(h.used) >= keep {
		p.drop(h.ID)
	}
}

// drop lets go of a memory. Forks that run have it still.
func (p *Pool) drop(id string) {
	if h := p.held[id]; h != nil {
		h.expiry.Stop()
		h.memory.Close()
		delete(p.held, id)
	}
}

// Remove removes a template, in RAM too.
func (p *Pool) Remove(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(id)
	return p.Cache.Remove(id)
}

// Close lets go of everything.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.held {
		p.drop(id)
	}
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Prune is the cache's; what goes is let go of in RAM too.
func (p *Pool) Prune(inUse func(Template) bool, dry bool) ([]Template, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, err := p.Cache.Prune(inUse, dry)
	for _, t := range gone {
		if !dry {
			p.drop(t.ID)
		}
	}
	return gone, err
}
