package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Bounds of forks.
const (
	forkBound  = 800 * time.Millisecond
	pauseBound = 200 * time.Millisecond
	eightBound = 5 * time.Second
	shareBound = 110 // MiB of a copy and its shim
)

const filesMiB = 1024 // that the VM has written which is forked

// fork measures forks of a VM at work.
func (b *benchmark) fork() error {
	if err := b.forks(512, 150, b.often(quick), pauseBound); err != nil {
		return err
	}
	return b.forks(2048, 1024, b.often(slow), 0)
}

// forks measures n forks of a VM with a server of this size; there is a bound
// only for one of them.
func (b *benchmark) forks(memoryMiB, heapMiB, n int, pauseBound time.Duration) error {
	p, err := b.work("bench-parent", memoryMiB, heapMiB, filesMiB)
	if err != nil {
		return err
	}
	var first, all, pauses []time.Duration
	for round := range n + 1 {
		took, pause, err := p.forkOnce()
		if err != nil {
			return err
		}
		if pauses = append(pauses, pause); round == 0 {
			first = append(first, took)
		} else {
			all = append(all, took)
		}
	}
	most := forkBound
	if pauseBound == 0 {
		most = 0
	}
	medians(fmt.Sprintf("fork -- true, %d MiB touched", heapMiB), most, all, nil).print()
	medians("  the first, which freezes 1 GiB of files", most, first, nil).print()
	medians("  the parent stood still", pauseBound, pauses, nil).print()
	medians("  longest of them", pauseBound, []time.Duration{slices.Max(pauses)}, nil).print()
	if err := p.silence(pauseBound); err != nil {
		return err
	}
	return p.end()
}

// forkOnce forks the parent once and looks at the copy.
func (p *parent) forkOnce() (took, pause time.Duration, err error) {
	began := time.Now()
	f, err := p.fork(1)
	took = time.Since(began)
	if err == nil {
		err = p.check(f.VMs[0].Name)
	}
	if err != nil {
		return 0, 0, err
	}
	return took, time.Duration(f.Pause * float64(time.Millisecond)), p.remove(f)
}

const (
	beat    = 5 * time.Millisecond
	listens = 5 // times, with a fork and without
)

// silence measures a fork's pause from outside: the longest that is heard nothing
// of a process of the parent that says something all the time, beside the
// longest without a fork in a time as long.
func (p *parent) silence(most time.Duration) error {
	var without, with []time.Duration
	for range listens {
		gap, took, err := p.listen(func() error {
			f, err := p.fork(1)
			if err != nil {
				return err
			}
			return p.remove(f)
		})
		if err != nil {
			return err
		}
		quiet, _, err := p.listen(func() error { return p.pause(took) })
		if err != nil {
			return err
		}
		with, without = append(with, gap), append(without, quiet)
	}
	medians("  nothing was heard of it (floor: without a fork)", most, with, without).print()
	return nil
}

// listen hears a process of the parent while something is done, and gives the
// longest time between two of its words.
func (p *parent) listen(do func() error) (gap, took time.Duration, err error) {
	talk := fmt.Sprintf("import time\nwhile True: print(flush=True); time.sleep(%v)", beat.Seconds())
	cmd := p.w.Command("exec", p.name, "--", "python3", "-c", talk)
	words, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	heard := make(chan time.Time, math.MaxUint16)
	go func() {
		defer close(heard)
		for word := bufio.NewReader(words); ; {
			if _, err := word.ReadByte(); err != nil {
				return
			}
			heard <- time.Now()
		}
	}()
	for range 100 { // its first words come slowly
		<-heard
	}
	last := <-heard
	began := time.Now()
	err = do()
	took = time.Since(began)
	err = errors.Join(err, cmd.Process.Kill())
	for at := range heard {
		gap, last = max(gap, at.Sub(last)), at
	}
	_ = cmd.Wait() // killed: no success
	return gap, took, err
}

// forkEight measures eight forks at once.
func (b *benchmark) forkEight() error {
	const count, rounds = 8, 3
	p, err := b.work("bench-parent", 512, 150, filesMiB)
	if err != nil {
		return err
	}
	var all []time.Duration
	var memory float64
	for range rounds {
		began := time.Now()
		f, err := p.fork(count)
		if err != nil {
			return err
		}
		all = append(all, time.Since(began))
		for _, vm := range f.VMs {
			memory = max(memory, vm.owned())
		}
		for _, vm := range f.VMs {
			if err := p.check(vm.Name); err != nil {
				return err
			}
		}
		if err := p.remove(f); err != nil {
			return err
		}
	}
	medians("fork -n 8 -- true, 150 MiB touched", eightBound, all, nil).print()
	row{what: "  most memory of one with its shim (PSS)", n: rounds * count, unit: mib, figure: memory, most: shareBound}.print()
	return p.end()
}
