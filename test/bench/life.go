package main

import "time"

func (b *benchmark) coldRun() error {
	all, err := inTurn(b.often(slow), b.floor.BootAndExec, b.command("run", "--rm", "--cold", "--", "true"))
	if err == nil {
		cold := medians("cold vm run --rm --cold -- true (floor: boot, exec)", 4*time.Second, all[1], all[0])
		cold.times = 1.2
		cold.print()
	}
	return err
}

func (b *benchmark) stop() error {
	if err := b.command("vm", "create", "--name", "bench-stop")(); err != nil {
		return err
	}
	var figures, floors []time.Duration
	for range b.often(slow) {
		if err := b.floor.Boot(); err != nil {
			return err
		}
		floor, err := timed(1, b.floor.Shutdown)
		if err != nil {
			return err
		}
		if err := b.command("exec", "bench-stop", "--", "true")(); err != nil {
			return err
		}
		figure, err := timed(1, b.command("stop", "bench-stop"))
		if err != nil {
			return err
		}
		figures, floors = append(figures, figure...), append(floors, floor...)
		if err := b.command("start", "bench-stop")(); err != nil {
			return err
		}
	}
	medians("vm stop of an idle VM", 2*time.Second, figures, floors).print()
	return b.command("rm", "-f", "bench-stop")()
}
