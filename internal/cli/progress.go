package cli

import (
	"fmt"
	"sync"
	"time"

	"banger/internal/api"
)

// redrawEvery is how often a live progress line shows a new time.
const redrawEvery = 100 * time.Millisecond

// worthKeeping is how long a stage must have taken for its line to stay on a
// terminal.
const worthKeeping = time.Second

// progress shows the stages of long work: redrawn in place on a terminal, one
// line a stage elsewhere.
type progress struct {
	v       *voice
	parent  *progress // shows it, where several things go on
	prefix  string
	begun   time.Time
	mu      sync.Mutex
	stage   string
	since   time.Time
	stop    chan struct{}
	stopped sync.WaitGroup
}

// progress begins to show work. End must be called.
func (v *voice) progress() *progress {
	p := &progress{v: v, begun: time.Now(), stop: make(chan struct{})}
	if v.lively() {
		p.stopped.Go(p.redraw)
	}
	return p
}

// of is the progress of one of several things that go on at once.
func (p *progress) of(name string, of int) *progress {
	if of < 2 {
		return p
	}
	return &progress{v: p.v, begun: p.begun, prefix: name + ": ", parent: p}
}

// watch takes the events of an operation.
func (p *progress) watch(e api.Event) {
	if e.Stage != "" {
		p.say(e.Stage)
	}
	if e.Warning != "" {
		p.v.warn("%s%s", p.prefix, e.Warning)
	}
}

// say says what begins now.
func (p *progress) say(name string) {
	if p.parent != nil {
		p.parent.say(p.prefix + name)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == p.stage {
		return
	}
	p.leave()
	p.stage, p.since = name, time.Now()
	if p.v.lively() {
		p.show()
	} else {
		p.v.say("[%s] %s", elapsed(p.since.Sub(p.begun)), name)
	}
}

// end takes the progress off the screen and says how long it all took. It
// may be called twice.
func (p *progress) end() time.Duration {
	p.mu.Lock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.leave()
	p.stage = ""
	p.mu.Unlock()
	p.stopped.Wait()
	return time.Since(p.begun)
}

// leave ends the stage on a terminal: its line stays if it took a while.
func (p *progress) leave() {
	if !p.v.lively() || p.stage == "" {
		return
	}
	p.draw("")
	if took := time.Since(p.since); took >= worthKeeping {
		p.v.say("%s (%s)", p.stage, elapsed(took))
	}
}

func (p *progress) redraw() {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if p.stop != nil && p.stage != "" {
			p.show()
		}
		p.mu.Unlock()
	}
}

func (p *progress) show() {
	p.draw(fmt.Sprintf("banger: %s… %s", p.stage, elapsed(time.Since(p.since))))
}

func (p *progress) draw(text string) {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	p.v.draw(text)
}
