package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tickEvery is the rhythm by which "tick" shows that time passes.
const tickEvery = 10 * time.Millisecond

// session answers requests; its mutex keeps ticks and answers on whole lines.
type session struct {
	mu      sync.Mutex
	port    io.Writer
	console io.Writer
	end     ender
	card    func() (int, error) // a descriptor that takes and gives frames
	still   chan struct{}       // closed to stop the ticks
	count   int
	churn   *churner
	swept   *sweeper
}

func (s *session) reply(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.port, format+"\n", args...)
}

// request carries out one line. Those that only start something answer "ok".
func (s *session) request(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "echo":
		s.reply("%s", rest)
	case "console":
		fmt.Fprintln(s.console, rest)
		s.reply("ok")
	case "flood":
		s.answer(s.flood(rest))
	case "tick":
		s.still = make(chan struct{})
		go s.tick(s.still)
	case "still":
		close(s.still)
	case "disk":
		s.answer(disk(rest))
	case "card":
		s.answer(s.useCard(rest))
	case "cmdline":
		text, err := os.ReadFile("/proc/cmdline")
		s.answer(strings.TrimSpace(string(text)), err)
	case "count":
		s.count++
		s.reply("%d", s.count)
	case "fill":
		s.answer(fill(rest))
	case "fillall":
		s.answer(fillAll())
	case "sum":
		s.reply("%s", checksum())
	case "churn":
		s.answer(s.startChurn(rest))
	case "check":
		s.answer(s.churn.check())
	case "sweep":
		s.answer(s.startSweep(rest))
	case "swept":
		s.answer(s.swept.check())
	case "calm":
		close(s.churn.stop)
		s.reply("ok")
	case "poweroff":
		s.answer("", s.end.poweroff())
	case "reset":
		s.answer("", s.end.reset())
	case "clock":
		s.reply("%d", time.Now().UnixNano())
	default:
		s.reply("error: unknown request %q", verb)
	}
}

// startChurn begins to write to so many MiB of memory and to a disk.
func (s *session) startChurn(request string) (string, error) {
	var mib int
	var serial string
	if _, err := fmt.Sscan(request, &mib, &serial); err != nil {
		return "", err
	}
	churn, err := newChurner(mib, serial)
	if err != nil {
		return "", err
	}
	s.churn = churn
	go churn.run()
	return "ok", nil
}

// startSweep begins to sweep so many MiB of memory.
func (s *session) startSweep(request string) (string, error) {
	mib, err := strconv.Atoi(request)
	if err != nil {
		return "", err
	}
	s.swept, err = newSweeper(mib)
	return "ok", err
}

func (s *session) answer(text string, err error) {
	if err != nil {
		s.reply("error: %v", err)
		return
	}
	s.reply("%s", text)
}

// flood writes size bytes to the console in the background, in lines, and
// answers a second time when they are out.
func (s *session) flood(size string) (string, error) {
	var n int
	if _, err := fmt.Sscan(size, &n); err != nil {
		return "", err
	}
	go func() {
		line := append(bytes.Repeat([]byte("x"), 63), '\n')
		for ; n > 0; n -= len(line) {
			s.console.Write(line)
		}
		s.reply("flooded")
	}()
	return "ok", nil
}

// tick sends a number again and again, a stream that stands still when the
// machine does, until it is told to be still, which it confirms.
func (s *session) tick(still <-chan struct{}) {
	rhythm := time.NewTicker(tickEvery)
	defer rhythm.Stop()
	for n := 0; ; n++ {
		select {
		case <-rhythm.C:
			s.reply("tick %d", n)
		case <-still:
			s.reply("ok")
			return
		}
	}
}

// process ends an ordinary process: its status stands for what a machine
// would do.
type process struct{}

func (process) poweroff() error { os.Exit(0); return nil }
func (process) reset() error    { os.Exit(10); return nil }
