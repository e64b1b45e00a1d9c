package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"

	"banger"
	"banger/internal/api"
	"banger/internal/template"
	"banger/internal/vm"
)

// templates implements vm.Templates: the pool, and one maker at a time in a
// process of its own.
type templates struct {
	template.Pool
	exe string
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	queue  []template.Spec // the first is being made
	failed map[string]int  // by id
	work   sync.WaitGroup
	stop   *os.File // ends the maker that runs when it is closed
}

// maxFailures is how often a template is tried before this daemon gives up.
const maxFailures = 2

var _ vm.Templates = (*templates)(nil)

// Want implements vm.Templates.
func (t *templates) Want(spec template.Spec) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := spec.Key.ID()
	if t.closed || t.failed[id] >= maxFailures {
		return
	}
	for _, waiting := range t.queue {
		if waiting.Key.ID() == id {
			return
		}
	}
	t.queue = append(t.queue, spec)
	if len(t.queue) == 1 {
		t.work.Go(t.make)
	}
}

// make makes what is wanted, one after the other.
func (t *templates) make() {
	for {
		t.mu.Lock()
		if t.closed || len(t.queue) == 0 {
			t.mu.Unlock()
			return
		}
		spec := t.queue[0]
		t.mu.Unlock()
		id := spec.Key.ID()
		err := t.makeOne(spec)
		if err == nil {
			t.warm(id)
		}
		t.mu.Lock()
		t.queue = t.queue[1:]
		if err != nil && !t.closed {
			t.log.Warn("cannot make a template", "template", id, "error", err)
			if t.failed == nil {
				t.failed = map[string]int{}
			}
			t.failed[id]++
		}
		t.mu.Unlock()
	}
}

// warm takes a new template into RAM before the first fork asks for it.
func (t *templates) warm(id string) {
	if fork, err := t.Open(context.Background(), id); err != nil {
		t.log.Warn("cannot open a template that was just made", "template", id, "error", err)
	} else {
		_ = fork.Close()
	}
}

// makeOne runs a maker to its end. The process ends with this one, or when it
// is told to: its standard input ends then.
func (t *templates) makeOne(spec template.Spec) error {
	path, err := t.Cache.WriteSpec(spec)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	process, said, err := t.start(path, theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	defer said.Close()
	if !t.stoppable(ours) {
		ours.Close()
	}
	// What it says last is why it failed.
	text, _ := io.ReadAll(io.LimitReader(said, 64<<10))
	state, err := process.Wait()
	t.stoppable(nil)
	if err == nil && !state.Success() {
		err = errors.New(lastLine(string(text)))
	}
	return err
}

func (t *templates) start(spec string, stdin *os.File) (*os.Process, *os.File, error) {
	said, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	process, err := os.StartProcess(t.exe, []string{"banger", "template", "make", spec}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"},
		Files: []*os.File{stdin, theirs, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		said.Close()
	}
	return process, said, err
}

// stoppable notes what ends the maker that runs; false once all is to end.
func (t *templates) stoppable(stop *os.File) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop = stop
	return !t.closed
}

// Close ends the maker that runs, and lets go of all memories.
func (t *templates) Close() {
	t.mu.Lock()
	t.closed = true
	if t.stop != nil {
		t.stop.Close()
	}
	t.mu.Unlock()
	t.work.Wait()
	t.Pool.Close()
}

// pruneCache removes the templates of which no VM that runs is a fork.
func (d *daemon) pruneCache(ctx context.Context, in *struct{ Body *api.PruneCache }) (api.Pruned, error) {
	how := or(in.Body)
	views, err := d.vms.List(ctx)
	if err != nil {
		return api.Pruned{}, err
	}
	used := map[string]bool{}
	for _, v := range views {
		used[v.Template] = true
	}
	gone, err := d.templates.Prune(func(t template.Template) bool { return used[t.ID] }, how.DryRun)
	out := api.Pruned{Templates: []api.Template{}}
	for _, t := range gone {
		out.Templates = append(out.Templates, api.Template{
			ID: t.ID, Image: t.Key.Image, VCPU: t.Key.VCPU, MemoryMiB: t.Key.MemoryMiB, SizeBytes: t.Size, UsedAt: t.UsedAt,
		})
		out.FreedBytes += t.Size
	}
	keep, keepErr := d.layersOfUse()
	if keepErr == nil {
		out.Blobs, out.BlobBytes, keepErr = d.images.builder.Cache.Prune(keep, how.DryRun)
		out.FreedBytes += out.BlobBytes
	}
	return out, banger.Wrap(errors.Join(err, keepErr), "cannot prune the cache")
}

// lastLine is the last line of a text that has one.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
