package hist

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// exact is the definition Quantile promises: the value of rank ceil(q*n).
func exact(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func TestQuantilesAgreeWithExactOnes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func() time.Duration{
		"uniform":   func() time.Duration { return time.Duration(rnd.IntN(1_000_000)) },
		"lognormal": func() time.Duration { return time.Duration(math.Exp(rnd.NormFloat64()*2 + 12)) },
		"two humps": func() time.Duration {
			if rnd.IntN(100) == 0 {
				return 40*time.Millisecond + time.Duration(rnd.IntN(5_000_000))
			}
			return 80*time.Microsecond + time.Duration(rnd.IntN(20_000))
		},
		"tiny":  func() time.Duration { return time.Duration(rnd.IntN(300)) },
		"huge":  func() time.Duration { return time.Duration(rnd.Int64N(math.MaxInt64)) },
		"equal": func() time.Duration { return 123_456_789 },
	}
	for name, draw := range shapes {
		var h Histogram
		all := make([]time.Duration, 20_000)
		for i := range all {
			all[i] = draw()
			h.Record(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1} {
			want, got := exact(all, q), h.Quantile(q)
			if diff := math.Abs(float64(got - want)); diff > 0.004*float64(want)+1 {
				t.Errorf("%s: quantile %v: got %v, want %v within 0.4 %%", name, q, got, want)
			}
		}
		if h.Min() != all[0] || h.Max() != all[len(all)-1] {
			t.Errorf("%s: extremes %v..%v, want exactly %v..%v", name, h.Min(), h.Max(), all[0], all[len(all)-1])
		}
	}
}

func TestEveryBucketHoldsItsOwnMiddle(t *testing.T) {
	for i := range buckets {
		if got := bucketOf(middle(i)); got != i {
			t.Fatalf("bucket %d: its middle %d falls into bucket %d", i, middle(i), got)
		}
	}
}

func TestMergeEqualsRecordingTogether(t *testing.T) {
	var a, b, both Histogram
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Merge(&b)
	a.Merge(&Histogram{})
	if a != both {
		t.Error("merged histogram differs from one that recorded everything")
	}
}

func TestEmptyAndNegative(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram must answer 0")
	}
	h.Record(-time.Second)
	if h.Count() != 1 || h.Max() != 0 {
		t.Errorf("a negative duration counts as 0: got %d of max %v", h.Count(), h.Max())
	}
}

func TestJSONRoundTrip(t *testing.T) {
	var h, back Histogram
	for i := range 500 {
		h.Record(time.Duration(i) * 1777 * time.Nanosecond)
	}
	text, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back != h {
		t.Error("the histogram read back differs")
	}
	if err := json.Unmarshal([]byte(`{"buckets":[[99999,1]]}`), &back); err == nil {
		t.Error("a bucket out of range must be refused")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var h Histogram
	d := time.Duration(0)
	if n := testing.AllocsPerRun(100, func() { d += 997; h.Record(d) }); n != 0 {
		t.Errorf("Record allocates %v times", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for i := range b.N {
		h.Record(time.Duration(i) * 13)
	}
}
