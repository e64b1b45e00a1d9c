package shim

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roomWanted is free space with which a guest that ran out of it goes on. It would
	// soon stand still again with less.
	roomWanted = 16 << 20
	// roomInterval is how often it is looked for.
	roomInterval = time.Second
)

func hasRoom(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) >= roomWanted
}

// outOfRoom notes that the VMM has halted the guest, whose writes the host has no
// room for, and has it go on once there is some.
func (s *supervisor) outOfRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit != nil {
		return
	}
	s.full = true
	s.wake()
	s.log.Warn("the guest stands still: the host has no room for what it writes")
	if !s.looking {
		s.looking = true
		s.work.Go(s.awaitRoom)
	}
}

// standstill says why a guest stands still, and what helps.
func (s *supervisor) standstill() string {
	return fmt.Sprintf("no space is left on the host for what it writes; it goes on by itself once there is, in %s", s.dir)
}

// awaitRoom returns once the guest goes on.
func (s *supervisor) awaitRoom() {
	look := time.NewTicker(roomInterval)
	defer look.Stop()
	for s.stillFull() {
		select {
		case <-look.C:
		case <-s.over:
			return
		}
		if s.room() {
			s.goOn()
		}
	}
}

func (s *supervisor) stillFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = s.full
	return s.full
}

// goOn has a guest run on that was out of room, unless it was paused meanwhile, or
// goes on already. A machine that halts again says so.
func (s *supervisor) goOn() {
	ctx, cancel := context.WithTimeout(context.Background(), vmmBound)
	defer cancel()
	if s.turn.take(ctx) != nil {
		return
	}
	defer s.turn.done()
	var b *boot
	runs := false
	s.update(func() { b, runs, s.full = s.boot, s.full && !s.paused, false })
	if !runs {
		return
	}
	if err := b.machine.Resume(ctx); err != nil {
		s.log.Warn("a guest for whose writes there is room again does not go on", "error", err)
		s.update(func() { s.full = s.boot == b && s.exit == nil })
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind(b)
}
