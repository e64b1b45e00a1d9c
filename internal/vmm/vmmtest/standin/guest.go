package standin

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/tether"
)

// guest is what runs in the machine: it answers the requests of the conformance suite. All it does
// it does with the gate held for reading, and waits for nobody meanwhile.
type guest struct {
	machine *machine
	gate    sync.RWMutex // held for writing while the vCPUs are halted
	ram     []byte
	port    *tether.Stream
	out     mailbox

	mu  sync.Mutex // one request or one step of its threads at a time
	cpu *cpu
}

// cpu is what there is of a guest beside its memory.
type cpu struct {
	Serials []string `json:"serials"` // of the disks, in their order
	Port    uint32   `json:"port"`    // at which the agent listens
	Used    int      `json:"used"`    // of the memory
	Ticks   bool     `json:"ticks"`
	Tick    int      `json:"tick"`
	Hold    span     `json:"hold"`
	Churn   *churn   `json:"churn"`
	Sweep   *sweep   `json:"sweep"`
}

// span is a part of memory.
type span struct{ At, Len int }

func newGuest(m *machine, ram []byte, state *cpu) *guest {
	g := &guest{machine: m, ram: ram, cpu: state, port: tether.NewGuest()}
	g.out.filled.L = &g.out.mu
	return g
}

// run starts the guest's threads.
func (g *guest) run() {
	if v := g.machine.about.Vsock; v != nil {
		v.serve(g)
	}
	go g.out.empty(g.port)
	go g.listen()
	go g.tick()
	go g.step(func() bool { return g.cpu.Churn != nil && g.cpu.Churn.On }, func() { g.cpu.Churn.write(g) })
	go g.step(func() bool { return g.cpu.Sweep != nil }, func() { g.cpu.Sweep.sweep(g, pagesPerSweep) })
}

// inside does what a vCPU does.
func (g *guest) inside(do func()) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

func (g *guest) reply(format string, args ...any) { g.out.put(fmt.Appendf(nil, format+"\n", args...)) }

// listen takes one request after the other.
func (g *guest) listen() {
	for in := bufio.NewScanner(g.port); in.Scan(); {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch {
		case verb == "card" && rest == "receive":
			frame := <-g.machine.about.Cards[0].frames
			g.inside(func() { g.reply("%s", describe(frame)) })
		case verb == "flood":
			g.flood(rest)
		default:
			g.inside(func() { g.answer(verb, rest) })
		}
	}
}

func (g *guest) answer(verb, rest string) {
	text, err := g.request(verb, rest)
	if err != nil {
		text = "error: " + err.Error()
	}
	if text != "" {
		g.reply("%s", text)
	}
}

func (g *guest) request(verb, rest string) (string, error) {
	switch verb {
	case "echo":
		return rest, nil
	case "console":
		fmt.Println(rest)
		return "ok", nil
	case "tick", "still":
		g.cpu.Ticks = verb == "tick"
		return map[string]string{"still": "ok"}[verb], nil
	case "count":
		n := binary.LittleEndian.Uint64(g.ram) + 1
		binary.LittleEndian.PutUint64(g.ram, n)
		return fmt.Sprint(n), nil
	case "disk":
		return g.useDisk(rest)
	case "card":
		return g.useCard(rest)
	case "fill", "fillall", "sum", "churn", "check", "calm", "sweep", "swept":
		return g.useMemory(verb, rest)
	case "poweroff":
		fmt.Print("[    1.000000] reboot: System halted\r\n")
		go g.gate.Lock() // nothing more runs
		return "", nil
	case "reset":
		g.machine.ended <- errReset
		return "", nil
	}
	return "", fmt.Errorf("unknown request %q", verb)
}

// tickEvery is the rhythm by which "tick" shows that time passes.
const tickEvery = 10 * time.Millisecond

func (g *guest) tick() {
	for range time.Tick(tickEvery) {
		g.inside(func() {
			if g.cpu.Ticks {
				g.reply("tick %d", g.cpu.Tick)
				g.cpu.Tick++
			}
		})
	}
}

// step does something again and again while there is cause to.
func (g *guest) step(cause func() bool, do func()) {
	for {
		idle := false
		g.inside(func() {
			if idle = !cause(); !idle {
				do()
			}
		})
		if idle {
			time.Sleep(tickEvery)
		}
	}
}

// flood writes so many bytes to the console, a line at a time.
func (g *guest) flood(size string) {
	var n int
	_, _ = fmt.Sscan(size, &n)
	g.reply("ok")
	go func() {
		line := append(bytes.Repeat([]byte("x"), 63), '\n')
		for ; n > 0; n -= len(line) {
			g.inside(func() { _, _ = os.Stdout.Write(line) })
		}
		g.inside(func() { g.reply("flooded") })
	}()
}

func (g *guest) disk(serial string) (*drive, error) {
	i := slices.Index(g.cpu.Serials, serial)
	if i < 0 || i >= len(g.machine.about.Drives) {
		return nil, fmt.Errorf("no disk %q among %q", serial, g.cpu.Serials)
	}
	return g.machine.about.Drives[i], nil
}

func (g *guest) useDisk(request string) (string, error) {
	var verb, serial, what string
	var at int64
	_, _ = fmt.Sscan(request, &verb, &serial, &at, &what)
	d, err := g.disk(serial)
	if err != nil {
		return "", err
	}
	switch verb {
	case "size":
		return fmt.Sprint(d.size), nil
	case "read":
		var n int
		_, _ = fmt.Sscan(what, &n)
		text, err := d.read(at, n)
		return string(text), err
	case "write":
		return "ok", d.write(at, []byte(what))
	}
	return "", fmt.Errorf("bad request %q", request)
}

// mailbox is what the guest has said and its link has not taken.
type mailbox struct {
	mu     sync.Mutex
	filled sync.Cond
	text   []byte
}

func (m *mailbox) put(text []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text = append(m.text, text...)
	m.filled.Broadcast()
}

func (m *mailbox) empty(to *tether.Stream) {
	for {
		m.mu.Lock()
		for len(m.text) == 0 {
			m.filled.Wait()
		}
		text := m.text
		m.text = nil
		m.mu.Unlock()
		if _, err := to.Write(text); errors.Is(err, tether.ErrClosed) {
			return
		}
	}
}
