package shim

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clientPatience is for how long what a client sent may wait for the guest before
// somebody looks whether the client is still there. What one sent that left in good order
// reaches a guest that is only slow.
const clientPatience = 5 * time.Second

// watched is the connection of a client that is looked after while nobody reads it. Whoever
// passes on what it sent waits as long as the guest takes nothing in, for ever where that
// is paused, and does not get to the end of what the client sent.
type watched struct {
	*outbox
	patience time.Duration
	left     func() // called where the client has gone

	mu    sync.Mutex
	look  *time.Timer
	since time.Time // when the reader turned to the guest, zero while it waits for the client
}

func watch(o *outbox, patience time.Duration) *watched {
	w := &watched{outbox: o, patience: patience}
	w.look = time.AfterFunc(patience, w.lookAfter)
	return w
}

// Read waits for the client, and leaves its caller to the guest.
func (w *watched) Read(p []byte) (int, error) {
	w.turn(time.Time{})
	n, err := w.outbox.Read(p)
	if err == nil {
		w.turn(time.Now())
	}
	return n, err
}

// turn notes since when the reader has been with the guest, if it is.
func (w *watched) turn(since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since = since; since.IsZero() {
		w.look.Stop()
	} else {
		w.look.Reset(w.patience)
	}
}

func (w *watched) lookAfter() {
	w.mu.Lock()
	away := !w.since.IsZero()
	if away {
		w.look.Reset(w.patience)
	}
	away = away && time.Since(w.since) >= w.patience // or it was back meanwhile
	w.mu.Unlock()
	if away && w.gone() {
		w.left()
	}
}

// gone says whether the client has closed its connection, or we have. One that has ended
// its own half only may still listen.
func (w *watched) gone() (yes bool) {
	err := w.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		yes = err == nil && p[0].Revents&unix.POLLHUP != 0
	})
	return yes || err != nil
}
