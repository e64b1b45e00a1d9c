package bench

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercentilesAreOfWhatWasMeasured(t *testing.T) {
	var all []time.Duration
	for ms := range 200 {
		all = append(all, time.Duration(200-ms)*time.Millisecond)
	}
	if p50, p99 := percentile(all, 50), percentile(all, 99); p50 != 100 || p99 != 198 {
		t.Errorf("got %v and %v", p50, p99)
	}
	if p50, p99 := percentile(all[:1], 50), percentile(all[:1], 99); p50 != 200 || p99 != 200 {
		t.Errorf("of one: got %v and %v", p50, p99)
	}
}

func TestFigureAndFloorAreMeasuredInTurn(t *testing.T) {
	var order []string
	slow := true
	note := func(name string) func() error {
		return func() error {
			if slow { // what is done before is not measured
				time.Sleep(time.Second)
			}
			slow = slow && name == "floor"
			order = append(order, name)
			return nil
		}
	}
	f := Figure{N: 2}
	synctest.Test(t, func(t *testing.T) {
		if err := f.inTurn(t.Context(), 1, note("figure"), note("floor")); err != nil {
			t.Error(err)
		}
	})
	if want := []string{"floor", "figure", "floor", "figure", "floor", "figure"}; !slices.Equal(order, want) || f.P99 != 0 || f.FloorP99 != 0 {
		t.Errorf("got %q, %+v", order, f)
	}
}

func TestMeasuringEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	f := Figure{N: 5}
	err := f.inTurn(ctx, 0, func() error { cancel(why); return nil }, func() error { return nil })
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
