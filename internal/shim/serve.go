package shim

import (
	"encoding/json"
	"errors"
	"net"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// farewell bounds how long clients may take to read their last answers.
const farewell = time.Second

// acceptClients serves everybody until the listener is closed.
func (s *supervisor) acceptClients() {
	for {
		conn, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // descriptors ran out, or the client left
			s.log.Warn("cannot accept a client", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		case !trusted(conn):
			s.log.Warn("refused a client of another user")
			_ = conn.Close()
			continue
		}
		s.serve(conn)
	}
}

func (s *supervisor) serve(conn *net.UnixConn) {
	o, err := newOutbox(conn)
	if err != nil {
		_ = conn.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit != nil {
		_ = conn.Close()
		return
	}
	s.clients[o] = true
	w := watch(o, s.patience)
	c := guestwire.Accept(w, s.handle)
	w.left = func() {
		s.log.Info("a client left while the guest takes nothing in")
		_ = c.Close()
	}
	s.serving.Go(func() {
		_ = c.Serve()
		w.turn(time.Time{})
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, o)
	})
}

// dismissClients gives every client its last answers and closes.
func (s *supervisor) dismissClients() {
	deadline := time.Now().Add(farewell)
	s.awaitAnswers(deadline)
	s.mu.Lock()
	var all []*outbox
	for o := range s.clients {
		all = append(all, o)
	}
	s.mu.Unlock()
	for _, o := range all {
		o.finish(deadline)
	}
	s.serving.Wait()
}

// awaitAnswers waits until every stream has its answer.
func (s *supervisor) awaitAnswers(deadline time.Time) {
	bound := time.NewTimer(time.Until(deadline))
	defer bound.Stop()
	for {
		s.mu.Lock()
		left, changed := s.answering, s.changed
		s.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-changed:
		case <-bound.C:
			return
		}
	}
}

// handle answers one stream of a client.
func (s *supervisor) handle(st *guestwire.Stream) {
	s.mu.Lock()
	s.answering++
	s.mu.Unlock()
	s.answer(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answering--
	if s.exit != nil {
		s.wake()
	}
}

func (s *supervisor) answer(st *guestwire.Stream) {
	if st.Kind < guestwire.KindShim {
		s.relay(st)
		return
	}
	var c guestwire.Call
	if err := json.Unmarshal(st.Body, &c); err != nil || st.Kind != guestwire.KindShim {
		refuse(st, banger.Errorf(banger.BadRequest, "not a request to a shim"))
		return
	}
	switch c.Method {
	case methodWatch:
		s.watch(st)
	case methodOwn:
		s.own(st)
	default:
		result, err := s.call(st, c)
		if err != nil {
			refuse(st, err)
			return
		}
		finish(st, result)
	}
}

// relay joins a stream to the guest.
func (s *supervisor) relay(st *guestwire.Stream) {
	if isUse(st.Kind) {
		s.count(1)
		defer s.count(-1)
	}
	link, boots, err := s.awaitGuest(st.Done())
	if err != nil {
		refuse(st, err)
		return
	}
	if link == nil {
		return
	}
	if err := pass(st, link); err != nil {
		s.explain(st, boots, err)
	}
}

// pass joins a stream to the guest until it has ended. That of a client that is gone has,
// whenever the guest takes it in.
func pass(st *guestwire.Stream, link *guestlink.Link) error {
	passed := make(chan error, 1)
	go func() { passed <- link.Conn().Relay(st) }()
	select {
	case err := <-passed:
		return err
	case <-st.Done():
		if err := st.Err(); err != nil {
			return err
		}
		return <-passed // the result, which is about to be sent
	}
}

// lostBound is how long the reason of a lost link may take to be known. Where the machine
// is at its end it is on its way, and has endsKilled more.
const lostBound = 2 * time.Second

// explain ends a stream whose guest half failed, in the boot of that number. A
// link is lost a moment before it is known why, or noticed a moment after.
func (s *supervisor) explain(st *guestwire.Stream, boots int, err error) {
	select {
	case <-st.Done(): // its client is gone
		return
	default:
	}
	bound := time.NewTimer(lostBound)
	defer bound.Stop()
	for ends := false; ; {
		now, changed := s.status()
		switch {
		case now.Exit != nil:
			refuse(st, banger.Errorf(banger.Unavailable, "the guest is gone: %s", now.Exit.Message))
			return
		case now.Boots != boots:
			refuse(st, banger.Errorf(banger.Unavailable, "the guest is gone: it rebooted"))
			return
		}
		select {
		case <-changed:
		case <-st.Done():
			return
		case <-bound.C:
			if !ends && s.ends() {
				ends = true
				bound.Reset(endsKilled)
				continue
			}
			refuse(st, banger.Errorf(banger.Unavailable, "the guest is gone: %w", err))
			return
		}
	}
}

// ends says whether the machine has ended, or was asked to.
func (s *supervisor) ends() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.boot.machine.Done():
		return true
	default:
		return s.asked != ""
	}
}

func refuse(st *guestwire.Stream, err error) {
	st.Fail(string(banger.CodeOf(err)), err.Error(), banger.HintsOf(err)...)
}

func finish(st *guestwire.Stream, result any) {
	body, err := json.Marshal(result)
	if err != nil {
		refuse(st, err)
		return
	}
	st.Finish(body)
}
