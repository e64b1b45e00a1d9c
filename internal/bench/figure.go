package bench

import (
	"context"
	"math"
	"slices"
	"time"
)

// Figure is how long one thing took, beside the same by hand.
type Figure struct {
	What     string  `json:"what"`
	N        int     `json:"n"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	FloorP50 float64 `json:"floor_p50_ms"`
	FloorP99 float64 `json:"floor_p99_ms"`
	Ratio    float64 `json:"ratio"` // of the medians
}

// inTurn measures both N times, in turn, so that both see the same host. They
// are done before a few times, unmeasured: an emulated guest translates code when
// it runs it first.
func (f *Figure) inTurn(ctx context.Context, before int, figure, floor func() error) error {
	var figures, floors []time.Duration
	for range before + f.N {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := timed(&floors, floor); err != nil {
			return err
		}
		if err := timed(&figures, figure); err != nil {
			return err
		}
	}
	figures, floors = figures[before:], floors[before:]
	f.P50, f.P99 = percentile(figures, 50), percentile(figures, 99)
	f.FloorP50, f.FloorP99 = percentile(floors, 50), percentile(floors, 99)
	f.Ratio = f.P50 / f.FloorP50
	return nil
}

func timed(all *[]time.Duration, do func() error) error {
	began := time.Now()
	err := do()
	*all = append(*all, time.Since(began))
	return err
}

// percentile is the smallest of all, in milliseconds, that p in a hundred do
// not exceed.
func percentile(all []time.Duration, p float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	nearest := int(math.Ceil(p / 100 * float64(len(sorted))))
	return float64(sorted[max(nearest, 1)-1]) / float64(time.Millisecond)
}
