package stats

import (
	"math"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b) }

func TestQuantiles(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		in               []float64
		min, median, max float64
		q1               float64
	}{
		{nil, nan, nan, nan, nan},
		{[]float64{7}, 7, 7, 7, 7},
		{[]float64{3, 1}, 1, 2, 3, 1.5},
		{[]float64{9, 1, 5}, 1, 5, 9, 3},
		{[]float64{4, 1, 3, 2}, 1, 2.5, 4, 1.75},
	} {
		if got := Median(c.in); !near(got, c.median) {
			t.Errorf("median of %v: got %v, want %v", c.in, got, c.median)
		}
		if got := Min(c.in); !near(got, c.min) {
			t.Errorf("min of %v: got %v, want %v", c.in, got, c.min)
		}
		if got := Max(c.in); !near(got, c.max) {
			t.Errorf("max of %v: got %v, want %v", c.in, got, c.max)
		}
		if got := Quantile(c.in, 0.25); !near(got, c.q1) {
			t.Errorf("lower quartile of %v: got %v, want %v", c.in, got, c.q1)
		}
	}
}

func TestPairedCancelsASlowMinute(t *testing.T) {
	// Round 2 was three times slower for both, round 4 has no rival.
	a := map[int]float64{1: 8, 2: 24, 3: 8.8, 4: 1}
	b := map[int]float64{1: 10, 2: 30, 3: 10}
	r := Paired(a, b, Min)
	if !near(r.Median, 0.8) || !near(r.Best, 0.8) || r.Rounds != 3 {
		t.Errorf("got %+v, want 0.8 over 3 rounds", r)
	}
	if !near(r.Spread(), (0.84-0.8)/0.8) {
		t.Errorf("spread %v", r.Spread())
	}
	if r := Paired(a, nil, Min); !math.IsNaN(r.Median) || r.Rounds != 0 {
		t.Errorf("without a rival: got %+v, want NaN", r)
	}
	if r := Paired(map[int]float64{1: 2, 2: 6}, map[int]float64{1: 4, 2: 5}, Max); !near(r.Best, 1.2) {
		t.Errorf("best of rates: got %v, want 6/5", r.Best)
	}
}

func TestSlopeIgnoresOutliers(t *testing.T) {
	var x, y []float64
	for i := range 20 {
		x, y = append(x, float64(i)), append(y, 3*float64(i)+1)
	}
	y[4], y[15] = 900, -900
	if got := Slope(x, y); !near(got, 3) {
		t.Errorf("got %v, want 3", got)
	}
	if got := Slope([]float64{1, 1}, []float64{2, 3}); !math.IsNaN(got) {
		t.Errorf("one x: got %v, want NaN", got)
	}
}
