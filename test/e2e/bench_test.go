package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestBenchMeasuresEachThingBesideItsFloor(t *testing.T) {
	var said struct {
		VMM, Accel string
		Figures    []struct {
			What  string  `json:"what"`
			N     int     `json:"n"`
			P50   float64 `json:"p50_ms"`
			P99   float64 `json:"p99_ms"`
			Floor float64 `json:"floor_p50_ms"`
			Ratio float64 `json:"ratio"`
		}
	}
	out := shared.must(t, "bench", "--n", "1", "--json")
	if err := json.Unmarshal([]byte(out), &said); err != nil || said.VMM == "" || said.Accel == "" {
		t.Fatalf("%v in %s", err, out)
	}
	var what []string
	for _, f := range said.Figures {
		what = append(what, f.What)
		if f.N != 1 || f.P50 <= 0 || f.P99 != f.P50 || f.Floor <= 0 || f.Ratio != f.P50/f.Floor {
			t.Errorf("%s: %+v", f.What, f)
		}
	}
	if want := []string{"cold-run", "warm-run", "exec", "fork"}; !slices.Equal(what, want) {
		t.Fatalf("measured %q, not %q", what, want)
	}
	if left := shared.must(t, "ps", "-a"); strings.Contains(left, "bench-") {
		t.Errorf("it left its VM:\n%s", left)
	}
}
