package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/api"
)

// keepDone is how many ended operations are remembered.
const keepDone = 50

// Why an operation was cancelled.
var (
	errClientGone = errors.New("the client went away")
	errOnRequest  = errors.New("it was asked to end")
	errStopping   = errors.New("the daemon is stopping")
)

// operations is the long work under way, and the last that ended.
type operations struct {
	log   *slog.Logger
	fault func(kind, subject, id string, err error) *api.Problem

	mu      sync.Mutex
	closed  bool
	running []*operation
	done    []api.Operation // oldest first
	wait    sync.WaitGroup
}

// operation is one piece of long work. What it tells is kept until it was
// read by the one client that follows it.
type operation struct {
	id, kind, subject string
	cancel            context.CancelCauseFunc

	mu      sync.Mutex
	seen    api.Operation
	events  []api.Event
	changed chan struct{} // closed and replaced at each event
}

// work is what an operation does; its result goes to the client.
type work func(ctx context.Context, op *operation) (any, error)

// start runs w in a goroutine of its own, which close waits for. The work is
// cancelled when ctx, its client's, ends.
func (o *operations) start(ctx context.Context, kind, subject string, w work) (*operation, error) {
	op := &operation{id: banger.NewID(), kind: kind, subject: subject, changed: make(chan struct{})}
	op.seen = api.Operation{ID: op.id, Kind: kind, Subject: subject, State: "running", StartedAt: time.Now().UTC()}
	op.events = []api.Event{{OperationID: op.id}}
	opCtx, cancel := context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), operationKey{}, op))
	op.cancel = cancel
	if err := o.add(op); err != nil {
		cancel(err)
		return nil, err
	}
	unhook := context.AfterFunc(ctx, func() { cancel(errClientGone) })
	go func() {
		defer o.wait.Done()
		defer cancel(nil)
		result, err := guarded(opCtx, op, w)
		unhook()
		o.end(opCtx, op, result, err)
	}()
	return op, nil
}

// operationKey is what an operation is found by in the context of its work.
type operationKey struct{}

// operationIn names the operation whose context this is, as in "image.pull
// (1234567890ab)", "" for none.
func operationIn(ctx context.Context) string {
	op, is := ctx.Value(operationKey{}).(*operation)
	if !is {
		return ""
	}
	return fmt.Sprintf("%s (%s)", op.kind, banger.ShortID(op.id))
}

func (o *operations) add(op *operation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return banger.Errorf(banger.Unavailable, "cannot begin: the daemon is stopping").Hint("try again")
	}
	o.running = append(o.running, op)
	o.wait.Add(1)
	return nil
}

// guarded keeps a panic in one operation from ending all.
func guarded(ctx context.Context, op *operation, w work) (result any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return w(ctx, op)
}

func (o *operations) end(ctx context.Context, op *operation, result any, err error) {
	last := api.Event{Result: []byte("null")}
	state := "done"
	switch {
	case err == nil && result != nil:
		last.Result = api.Marshal(result)
	case err != nil && ctx.Err() != nil:
		state, last = "cancelled", api.Event{Error: cancelled(ctx, op, err)}
	case err != nil:
		state, last = "failed", api.Event{Error: o.fault(op.kind, op.subject, op.id, begun(err))}
	}
	seen := op.ended(state, last.Error)
	line := []any{"operation", op.id, "kind", op.kind, "subject", op.subject,
		"state", state, "took", seen.EndedAt.Sub(seen.StartedAt).String()}
	if last.Error != nil {
		line = append(line, "error", last.Error.Title)
	}
	o.log.Info("operation ended", line...)
	o.retire(op, seen)
	op.tell(last) // after it: who hears the end finds the daemon idle
}

// begun makes no bad request of what work that had begun met: a request is
// refused as one before.
func begun(err error) error {
	if banger.CodeOf(err) != banger.BadRequest {
		return err
	}
	return banger.Errorf(banger.Conflict, "%w", err)
}

func (op *operation) ended(state string, p *api.Problem) api.Operation {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.seen.State, op.seen.Error, op.seen.EndedAt = state, p, time.Now().UTC()
	return op.seen
}

func (o *operations) retire(op *operation, seen api.Operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = slices.DeleteFunc(o.running, func(r *operation) bool { return r == op })
	o.done = append(o.done, seen)
	if len(o.done) > keepDone {
		o.done = slices.Delete(o.done, 0, len(o.done)-keepDone)
	}
}

// cancelled is the problem of an operation that did not reach its end.
func cancelled(ctx context.Context, op *operation, err error) *api.Problem {
	why := context.Cause(ctx)
	p := &api.Problem{
		Title: fmt.Sprintf("cancelled %s: %s", describe(op.kind, op.subject), why),
		Code:  banger.Cancelled, Status: status(banger.Cancelled), OperationID: op.id,
	}
	if banger.CodeOf(err) != banger.Cancelled && !errors.Is(err, ctx.Err()) && banger.CodeOf(err) != banger.Internal {
		p.Title += " (" + err.Error() + ")" // such as an undo that failed
	}
	p.Hints = banger.HintsOf(err)
	return p
}

// describe turns "vm.create" of "box" into "create of VM box".
func describe(kind, subject string) string {
	noun, verb, _ := strings.Cut(kind, ".")
	if noun == "vm" {
		noun = "VM"
	}
	return strings.TrimSpace(fmt.Sprintf("%s of %s %s", verb, noun, subject))
}

// Stage and Warn implement vm.Progress.
func (op *operation) Stage(name string) {
	op.mu.Lock()
	op.seen.Stage = name
	op.mu.Unlock()
	op.tell(api.Event{Stage: name})
}

func (op *operation) Warn(message string) { op.tell(api.Event{Warning: message}) }

func (op *operation) tell(e api.Event) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.events = append(op.events, e)
	close(op.changed)
	op.changed = make(chan struct{})
}

// take gives the events since it was last called, and a channel that closes
// when there are more.
func (op *operation) take() ([]api.Event, <-chan struct{}) {
	op.mu.Lock()
	defer op.mu.Unlock()
	events := op.events
	op.events = nil
	return events, op.changed
}

func (op *operation) snapshot() api.Operation {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.seen
}

// list gives those that run, then those that ended, newest first.
func (o *operations) list() []api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]api.Operation, 0, len(o.running)+len(o.done))
	for _, op := range slices.Backward(o.running) {
		all = append(all, op.snapshot())
	}
	for _, op := range slices.Backward(o.done) {
		all = append(all, op)
	}
	return all
}

// find is the operation with this id, or the only one whose id begins so.
func (o *operations) find(id string) (api.Operation, error) {
	var found []api.Operation
	for _, op := range o.list() {
		if strings.HasPrefix(op.ID, id) {
			found = append(found, op)
		}
	}
	if len(found) != 1 || id == "" {
		return api.Operation{}, banger.Errorf(banger.NotFound, "there is no operation %q under way or just ended", id)
	}
	return found[0], nil
}

// cancel ends an operation; one that ended already is no error.
func (o *operations) cancel(id string) error {
	found, err := o.find(id)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.running {
		if op.id == found.ID {
			op.cancel(errOnRequest)
		}
	}
	return nil
}

// close lets no operation begin any more. Unless forced it refuses, and
// changes nothing, while one runs.
func (o *operations) close(force bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.running) > 0 && !force {
		var names []string
		for _, op := range o.running {
			names = append(names, describe(op.kind, op.subject))
		}
		return banger.Errorf(banger.Busy, "cannot stop the daemon: it is busy with %s", strings.Join(names, ", ")).
			Hint("banger daemon stop --force cancels and undoes that")
	}
	o.closed = true
	for _, op := range o.running {
		op.cancel(errStopping)
	}
	return nil
}

// drain closes and gives what runs some time to end by itself before it is
// cancelled and undone.
func (o *operations) drain(patience time.Duration) {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	late := time.AfterFunc(patience, func() { _ = o.close(true) })
	defer late.Stop()
	o.wait.Wait()
}
