package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
)

// atOnce bounds in how many copies a command is started at one time.
const atOnce = 64

// forkRun is one command in all copies of a VM.
type forkRun struct {
	*forkOptions
	client  *client.Client
	forks   api.Forks
	shims   []*shim.Client
	trace   *trace
	streams streamGroup
	point   *forkPoint
}

// forkResult is how the command went in one copy.
type forkResult struct {
	Name      string  `json:"name"`
	ID        string  `json:"id"`
	Status    *int    `json:"status"` // nil where banger failed
	Millis    float64 `json:"ms"`
	Files     *int    `json:"files_changed"` // nil where the guest cannot tell
	Stdout    string  `json:"stdout"`
	Stderr    string  `json:"stderr"`
	Truncated bool    `json:"truncated,omitempty"` // more was written than is kept
	Error     string  `json:"error,omitempty"`

	Trace []banger.Phase `json:"trace,omitempty"` // with --trace

	err error
}

func (r *forkRun) run(ctx context.Context) error {
	r.trace = newTrace()
	err := r.prepare(ctx)
	if r.client != nil {
		defer r.client.Close()
	}
	defer r.hangUp()
	if err != nil {
		r.remove()
		return err
	}
	results, err := r.everywhere(ctx)
	r.remove()
	if err != nil {
		return err
	}
	return r.report(results)
}

// prepare makes the copies and becomes the owner of those that are to go with
// us. A signal until then undoes everything.
func (r *forkRun) prepare(ctx context.Context) (err error) {
	ctx, stop := cancelOnSignal(ctx)
	defer stop()
	if r.client, err = r.app.connect(ctx); err != nil {
		return interrupted(ctx, err)
	}
	r.trace.mark("connect")
	if r.forks, err = r.make(ctx, r.client); err != nil {
		return interrupted(ctx, err)
	}
	r.trace.mark("talk")
	r.shims = make([]*shim.Client, len(r.forks.VMs))
	for i, vm := range r.forks.VMs {
		if r.shims[i], err = shim.Dial(ctx, paths.VM(vm.Dir)); err == nil && r.rm {
			err = r.shims[i].Own(ctx)
		}
		if err != nil {
			return interrupted(ctx, banger.Wrap(err, "cannot reach %s", vm.Name))
		}
	}
	return nil
}

func (r *forkRun) hangUp() {
	for _, s := range r.shims {
		if s != nil {
			_ = s.Close()
		}
	}
}

// everywhere runs the command in all copies. It fails only where a second
// Ctrl-C ends banger itself.
func (r *forkRun) everywhere(ctx context.Context) ([]*forkResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endingSignals()...)
	defer signal.Stop(signals)
	go (&forwarder{stream: &r.streams, now: time.Now}).forward(ctx, signals, cancel)

	r.point = r.newForkPoint(ctx)
	results := make([]*forkResult, len(r.forks.VMs))
	var done sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i, vm := range r.forks.VMs {
		results[i] = &forkResult{Name: vm.Name, ID: vm.ID}
		done.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			r.one(ctx, vm, r.shims[i], results[i])
		})
	}
	done.Wait()
	return results, context.Cause(ctx)
}

// one runs the command in one copy.
func (r *forkRun) one(ctx context.Context, vm api.VM, sh *shim.Client, result *forkResult) {
	count := r.counting(ctx, vm, sh)
	began := time.Now()
	status, err := r.command(ctx, vm, sh, result)
	took := time.Since(began)
	result.Millis = milliseconds(took)
	if err != nil {
		result.err, result.Error = err, err.Error()
		return
	}
	result.Status = &status
	result.Files = count()
	if r.forkOptions.trace {
		st, _ := sh.Status(ctx)
		vm.Trace = st.Trace
		result.Trace = r.trace.of(vm).with("exec", took).phases
	}
}

func (r *forkRun) command(ctx context.Context, vm api.VM, sh *shim.Client, result *forkResult) (int, error) {
	request := guestwire.Exec{Argv: r.argv, Dir: vm.Workspace.GuestPath, User: ownerOf(vm.Workspace), UID: uint32(os.Getuid())}
	if !vm.Workspace.IsZero() {
		request.Under = mise
	}
	if err := r.app.inheritProxy(ctx, vm, sh, &request); err != nil {
		return 0, err
	}
	g := &guestCommand{v: r.app.voice, vm: vm.Name, dir: paths.VM(vm.Dir), shim: sh, request: request}
	if err := g.open(); err != nil {
		return 0, g.lost(err)
	}
	r.streams.add(g.stream)
	out, errs := r.outputs(result)
	exit, err := attach(ctx, g.stream, streams{Out: out, Err: errs})
	out.end()
	errs.end()
	if err != nil {
		return 0, g.lost(err)
	}
	if exit.Message != "" {
		r.app.say("%s: %s", vm.Name, exit.Message)
	}
	return int(exit.Status), nil
}

// remove deletes copies that were to go. Their shims would do so, but only
// after us.
func (r *forkRun) remove() {
	if !r.rm {
		return
	}
	var done sync.WaitGroup
	for _, vm := range r.forks.VMs {
		done.Go(func() {
			if err := (&launch{app: r.app, client: r.client, vm: vm}).remove(); err != nil {
				r.app.warn("cannot delete the VM %s: %v", vm.Name, err)
			}
		})
	}
	done.Wait()
}

func (r *forkRun) report(results []*forkResult) (err error) {
	failed := false
	for _, one := range results {
		failed = failed || one.Status == nil || *one.Status != 0
		if one.err != nil {
			r.app.fail(banger.Wrap(one.err, "cannot run the command in %s", one.Name))
		}
		(&trace{phases: one.Trace}).report(r.app.voice, r.prefix(api.VM{Name: one.Name}))
	}
	if r.out.json {
		err = r.app.json(struct {
			api.Forks
			Results []*forkResult `json:"results"`
		}{r.forks, results})
	} else {
		r.app.print(forkTable(results))
		r.remind()
	}
	if err == nil && failed {
		err = statusError(exitFailed)
	}
	return err
}

// remind says how to be rid of copies that stay.
func (r *forkRun) remind() {
	if r.rm {
		return
	}
	var names []string
	for _, vm := range r.forks.VMs {
		names = append(names, vm.Name)
	}
	r.app.hint("the copies stay: banger rm -f %s deletes them", strings.Join(names, " "))
}

func forkTable(results []*forkResult) *table {
	t := newTable("NAME", "STATUS", "TIME", "FILES")
	for _, r := range results {
		status, files := "error", ""
		if r.Status != nil {
			status = fmt.Sprint(*r.Status)
		}
		if r.Files != nil {
			files = fmt.Sprint(*r.Files)
		}
		t.row(r.Name, status, elapsed(time.Duration(r.Millis*float64(time.Millisecond))), files)
	}
	return t
}
