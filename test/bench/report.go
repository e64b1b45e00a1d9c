package main

import (
	"fmt"
	"slices"
	"time"
)

// row is one figure: what it is of, how often that was done, the bounds, and what
// the same costs without banger.
type row struct {
	what   string
	n      int
	unit   unit
	figure float64
	most   float64 // of the figure; 0 for no bound
	floor  float64 // 0 for none
	times  float64 // the floor, at most; 0 for no bound
}

// unit is how numbers are shown.
type unit string

const (
	ms      unit = "%.1f ms"
	mib     unit = "%.1f MiB"
	percent unit = "%.2f %%"
)

func (u unit) show(number float64) string {
	if number == 0 {
		return "-"
	}
	return fmt.Sprintf(string(u), number)
}

const layout = "%-50s %4s %11s %11s %11s %6s %8s\n"

func heading() { fmt.Printf(layout, "figure", "n", "banger", "at most", "floor", "ratio", "at most") }

func (r row) print() {
	ratio := 0.0
	if r.floor > 0 {
		ratio = r.figure / r.floor
	}
	missed := ""
	if r.most > 0 && r.figure > r.most || r.times > 0 && ratio > r.times {
		missed = "  MISSED"
	}
	number := unit("%.2f")
	fmt.Printf(layout, r.what, fmt.Sprint(r.n), r.unit.show(r.figure), r.unit.show(r.most), r.unit.show(r.floor),
		number.show(ratio), number.show(r.times)+missed)
}

// medians is a row of times.
func medians(what string, most time.Duration, figures, floors []time.Duration) row {
	return row{what: what, n: len(figures), unit: ms, figure: millis(median(figures)), most: millis(most), floor: millis(median(floors))}
}

// above is the row of what a figure takes more than a floor.
func above(what string, most time.Duration, figures, floors []time.Duration) row {
	return row{what: what, n: len(figures), unit: ms, figure: millis(median(figures) - median(floors)), most: millis(most)}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(d))[len(d)/2]
}
