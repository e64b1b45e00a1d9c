package shim

import (
	"context"
	"encoding/json"
	"syscall"
	"time"

	"banger"
	"banger/internal/guestwire"
)

// vmmBound is how long the VMM may take for what it is told.
const vmmBound = 30 * time.Second

// call answers a request that has one answer.
func (s *supervisor) call(st *guestwire.Stream, c guestwire.Call) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), vmmBound)
	defer cancel()
	switch c.Method {
	case methodStatus:
		now, _ := s.status()
		return now, nil
	case methodTouch:
		s.touch()
		return nil, nil
	case methodKeep:
		return nil, s.keep()
	case methodStop:
		return s.answerStop(st, c.Params)
	case methodKill:
		return s.answerKill(st, c.Params)
	case methodSave:
		return s.answerSave(st, c.Params)
	case methodSuspend:
		return s.answerSuspend(st, c.Params)
	case methodAllow:
		return s.answerAllow(c.Params)
	case methodProxy:
		return nil, s.openProxy(c.Params)
	case methodPorts:
		return s.listPorts()
	case methodNetwork:
		return s.networkReport()
	case methodExplain:
		return s.answerExplain(c.Params)
	case methodPause:
		return nil, s.pause(ctx)
	case methodResume:
		return nil, s.resume(ctx)
	case methodGrow:
		return nil, s.grow(ctx, c.Params)
	}
	return nil, banger.Errorf(banger.UnknownMethod, "the shim of %s does not know %q", s.launch.Name, c.Method).
		Hint("banger vm restart %s starts it with the newest shim", s.launch.Name)
}

func parse(params json.RawMessage, into any) error {
	if err := json.Unmarshal(params, into); err != nil {
		return banger.Errorf(banger.BadRequest, "bad parameters: %w", err)
	}
	return nil
}

func (s *supervisor) answerStop(st *guestwire.Stream, params json.RawMessage) (any, error) {
	var r stopRequest
	if err := parse(params, &r); err != nil {
		return nil, err
	}
	err := s.noticeUnattended(context.Background(), r.IfIdle)
	if err == nil {
		err = s.beginStop(max(0, time.Duration(r.TimeoutMillis)*time.Millisecond), r.IfIdle)
	}
	if err != nil {
		return nil, banger.Wrap(err, "cannot stop %s", s.launch.Name)
	}
	return s.awaitExit(st)
}

func (s *supervisor) answerKill(st *guestwire.Stream, params json.RawMessage) (any, error) {
	var r killRequest
	if err := parse(params, &r); err != nil {
		return nil, err
	}
	sig := syscall.Signal(r.Signal)
	switch sig {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT:
	default:
		return nil, banger.Errorf(banger.BadRequest, "cannot kill %s with signal %d: only KILL, TERM and INT end a VMM", s.launch.Name, r.Signal)
	}
	if err := s.kill(ReasonKilled, sig); err != nil {
		return nil, banger.Wrap(err, "cannot kill %s", s.launch.Name)
	}
	return s.awaitExit(st)
}

// answerSave saves for as long as the client wants it.
func (s *supervisor) answerSave(st *guestwire.Stream, params json.RawMessage) (any, error) {
	var r SaveRequest
	if err := parse(params, &r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), saveBound)
	defer cancel()
	go func() { // ends with the stream, whose answer comes from here
		select {
		case <-st.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	s.touch()
	saved, err := s.save(ctx, r)
	return saved, banger.Wrap(err, "cannot save %s", s.launch.Name)
}

func (s *supervisor) answerSuspend(st *guestwire.Stream, params json.RawMessage) (any, error) {
	var r suspendRequest
	if len(params) > 0 {
		if err := parse(params, &r); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), saveBound)
	defer cancel()
	if err := s.suspend(ctx, r.IfIdle); err != nil {
		return nil, banger.Wrap(err, "cannot suspend %s", s.launch.Name)
	}
	return s.awaitExit(st)
}

// awaitExit waits for the VM's end, which goes on if the client leaves.
func (s *supervisor) awaitExit(st *guestwire.Stream) (any, error) {
	select {
	case <-s.over:
		now, _ := s.status()
		return now.Exit, nil
	case <-st.Done():
		return nil, st.Err()
	}
}

func (s *supervisor) pause(ctx context.Context) error {
	if err := s.turn.take(ctx); err != nil {
		return banger.Wrap(err, "cannot pause %s", s.launch.Name)
	}
	defer s.turn.done()
	b, err := s.live()
	if err == nil {
		err = s.halt(ctx, b)
	}
	if err != nil {
		return banger.Wrap(err, "cannot pause %s", s.launch.Name)
	}
	s.update(func() { s.paused = s.boot == b })
	return nil
}

// halt pauses a machine, or leaves it as it was: a VMM that takes longer than it may
// would pause it later, and everybody was told that it runs.
func (s *supervisor) halt(ctx context.Context, b *boot) error {
	s.mu.Lock()
	ran := !s.paused && !s.full
	s.mu.Unlock()
	err := b.machine.Pause(ctx)
	if err == nil || !ran {
		return err
	}
	undone := s.runOn(ctx, b)
	switch {
	case banger.CodeOf(undone) == banger.NotRunning: // it ended meanwhile
		return err
	case undone != nil:
		return banger.Errorf(banger.CodeOf(undone), "%w", undone).Hint("banger vm resume %s", s.launch.Name)
	case ctx.Err() != nil:
		return banger.Errorf(banger.Unavailable, "its VMM takes too long, and it runs on: %w", err).
			Hint("banger vm pause %s tries again", s.launch.Name)
	}
	return err
}

func (s *supervisor) resume(ctx context.Context) error {
	b, err := s.live()
	if err == nil {
		err = s.unpause(ctx, b)
	}
	if err != nil {
		return banger.Wrap(err, "cannot resume %s", s.launch.Name)
	}
	if err := s.refresh(ctx, b); err != nil {
		s.log.Warn("the guest's clock is late by its pause", "error", err)
	}
	return nil
}

// refresh sets the guest up again: its clock stood still with it, or its disk
// has grown.
func (s *supervisor) refresh(ctx context.Context, b *boot) error {
	s.mu.Lock()
	link := b.link
	s.mu.Unlock()
	if link == nil {
		return nil // it will be set up when it comes up
	}
	_, err := s.setUp(ctx, link, false)
	if err != nil {
		s.doubtClock()
	}
	return err
}

// unpause lets a paused VM run.
func (s *supervisor) unpause(ctx context.Context, b *boot) error {
	if err := s.turn.take(ctx); err != nil {
		return err
	}
	defer s.turn.done()
	s.update(func() { s.full, s.touched = false, time.Now() }) // full, or it is said again
	if err := b.machine.Resume(ctx); err != nil {
		return err
	}
	s.update(func() { s.paused = false })
	return nil
}

func (s *supervisor) grow(ctx context.Context, params json.RawMessage) error {
	var r growRequest
	if err := parse(params, &r); err != nil {
		return err
	}
	b, err := s.growVMM(ctx, r)
	if err == nil {
		err = s.refresh(ctx, b)
	}
	return banger.Wrap(err, "cannot grow the disk of %s", s.launch.Name)
}

func (s *supervisor) growVMM(ctx context.Context, r growRequest) (*boot, error) {
	if err := s.turn.take(ctx); err != nil {
		return nil, err
	}
	defer s.turn.done()
	b, err := s.live()
	if err != nil {
		return nil, err
	}
	if err := b.machine.GrowDisk(ctx, r.Serial, r.Size); err != nil {
		return nil, err
	}
	if r.Serial == diskSerial { // the guest is told, also after a reboot
		s.mu.Lock()
		s.launch.Setup.DiskBytes = r.Size
		s.mu.Unlock()
	}
	return b, nil
}

// keep makes the VM outlive its owners, also if it is launched again.
func (s *supervisor) keep() error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	s.mu.Lock()
	l := s.launch
	s.mu.Unlock()
	l.Ephemeral = false
	if err := l.write(s.dir); err != nil {
		return fileError(err, "cannot keep %s", l.Name)
	}
	s.update(func() { s.launch.Ephemeral = false })
	return nil
}

// watch sends the status at each change until the VM has ended.
func (s *supervisor) watch(st *guestwire.Stream) {
	lines := json.NewEncoder(st.Writer(report))
	for {
		now, changed := s.status()
		if lines.Encode(now) != nil {
			return
		}
		if now.State == Ended {
			st.Finish(nil)
			return
		}
		select {
		case <-changed:
		case <-st.Done():
			return
		}
	}
}

// own makes the client an owner for as long as the stream is there. An
// ephemeral VM has no use without one.
func (s *supervisor) own(st *guestwire.Stream) {
	if _, err := s.live(); err != nil {
		refuse(st, err)
		return
	}
	s.update(func() { s.owners++ })
	_, _ = st.Writer(report).Write([]byte("\n")) // cannot wait: the window is open
	select {
	case <-st.Done():
	case <-s.over:
		st.Finish(nil)
	}
	last := false
	s.update(func() {
		s.owners--
		last = s.owners == 0 && s.launch.Ephemeral && s.exit == nil
	})
	if last {
		s.log.Info("the owner of an ephemeral VM is gone")
		_ = s.kill(ReasonOwnerGone, killSignal)
	}
}
