package boot

import (
	"math"
	"strings"
	"testing"
)

const timerTable = `Timer List Version: v0.9
cpu: 0
 clock 0:

Tick Device: mode:     1
Broadcast device
Clock Event Device: <NULL>
tick_broadcast_mask: 0

Tick Device: mode:     1
Per CPU device: 0
Clock Event Device: lapic
 max_delta_ns:   38101115641
 min_delta_ns:   1000
 mult:           268435456
 shift:          32
 mode:           3
`

func TestTimerIsReadFromTheKernelsTable(t *testing.T) {
	for _, c := range []struct {
		name, table string
		want        float64
	}{
		{"as it should be", timerTable, 62_500},
		{"far too slow", strings.Replace(timerTable, "268435456", "4123", 1), 0.96},
		{"none", strings.Replace(timerTable, "lapic", "<NULL>", 1), 0},
		{"one that needs no measuring", strings.Replace(timerTable, "lapic", "lapic-deadline", 1), 0},
		{"cut short", strings.Split(timerTable, " shift")[0], 0},
	} {
		if got := timerKHz(c.table); math.Abs(got-c.want) > 0.01 {
			t.Errorf("%s: %v kHz, want %v", c.name, got, c.want)
		}
	}
}
