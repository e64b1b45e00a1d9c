package oci

import (
	"io"
	"time"
)

// watchdog ends a transfer in which nothing comes any more.
type watchdog struct {
	timer *time.Timer
	after time.Duration
}

func newWatchdog(after time.Duration, end func()) *watchdog {
	return &watchdog{time.AfterFunc(after, end), after}
}

func (w *watchdog) stop() { w.timer.Stop() }

func (w *watchdog) reader(r io.Reader) io.Reader { return watched{w, r} }

type watched struct {
	*watchdog
	r io.Reader
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.timer.Reset(w.after)
	return n, err
}
