package cli

import (
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/text/width"

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
	stop := make(chan struct{})
	p := &progress{v: v, begun: time.Now(), stop: stop}
	if v.lively() {
		p.stopped.Go(func() { p.redraw(stop) })
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

// redraw shows a new time until stop closes, which may be before it begins.
func (p *progress) redraw(stop <-chan struct{}) {
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
	p.draw(liveLine(p.stage, elapsed(time.Since(p.since)), p.v.cols()))
}

// liveLine is what is redrawn in place: one line of a terminal of cols columns,
// 0 for any. One that is wrapped could not be taken back. The last column stays
// free: some terminals go on to the next line once it is used.
func liveLine(stage, took string, cols int) string {
	line := strings.Join(strings.Fields("banger: "+stage), " ") + "…"
	if cols <= 0 {
		return line + " " + took
	}
	if room := cols - 1 - cells(took) - 1; room >= len("banger: ") {
		return cut(line, room) + " " + took
	}
	return cut(line, cols-1)
}

// cut shortens a line to so many columns, and shows that it did.
func cut(line string, cols int) string {
	if cells(line) <= cols {
		return line
	}
	taken := 0
	for at, r := range line {
		if taken += cell(r); taken >= cols {
			return line[:at] + "…"
		}
	}
	return line
}

// cells is how many columns of a terminal a line takes.
func cells(line string) (n int) {
	for _, r := range line {
		n += cell(r)
	}
	return n
}

func cell(r rune) int {
	if unicode.Is(unicode.Mn, r) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

func (p *progress) draw(text string) {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	p.v.draw(text)
}
