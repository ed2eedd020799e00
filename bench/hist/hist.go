// Package hist is a log-bucketed histogram of nanoseconds, in the manner of HdrHistogram: constant memory, no allocation
// on Record, and a relative error below 0.4 % at every magnitude.
//
// A Histogram has one owner; loops record into their own and the results are merged. It does not know what is measured.
package hist

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Each power of two is cut into 128 buckets; a bucket's middle is at most 1/256 away from any value in it.
const (
	subBits = 7
	sub     = 1 << subBits
	buckets = (64 - subBits + 1) * sub
)

// Histogram counts durations. The zero value is empty and ready. It is 58 KiB large: keep it, do not copy it.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	sum    float64
	min    uint64
	max    uint64
}

// Record counts one duration; negative ones count as 0. It never allocates.
func (h *Histogram) Record(d time.Duration) {
	v := uint64(0)
	if d > 0 {
		v = uint64(d)
	}
	h.add(bucketOf(v), 1)
	h.sum += float64(v)
	if v > h.max {
		h.max = v
	}
	if h.n == 1 || v < h.min {
		h.min = v
	}
}

func (h *Histogram) add(bucket int, count uint64) {
	h.counts[bucket] += count
	h.n += count
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Min and Max return the exact extremes, 0 when empty.
func (h *Histogram) Min() time.Duration { return time.Duration(h.min) }

// Max returns the longest duration recorded, 0 when empty.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Mean returns the arithmetic mean, 0 when empty.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile returns the smallest recorded duration d such that at least the share q (0..1) of all are <= d, to within
// 0.4 %; 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.n)))
	rank = min(max(rank, 1), h.n)
	seen := uint64(0)
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return time.Duration(min(max(middle(i), h.min), h.max))
		}
	}
	return time.Duration(h.max)
}

// Merge adds everything o holds.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	if h.n == 0 || o.min < h.min {
		h.min = o.min
	}
	h.max = max(h.max, o.max)
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
}

// bucketOf maps a value to its bucket: values below 256 have one each, then 128 per power of two.
func bucketOf(v uint64) int {
	if v < sub {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)*sub + int(v>>shift) - sub
}

// middle is the value that stands for a bucket.
func middle(bucket int) uint64 {
	if bucket < 2*sub {
		return uint64(bucket)
	}
	shift := bucket/sub - 1
	low := uint64(bucket%sub+sub) << shift
	return low + (uint64(1)<<shift)/2
}

// wire is the JSON form: sparse, so that a typical histogram is a few kilobytes.
type wire struct {
	MinNS   uint64      `json:"min_ns"`
	MaxNS   uint64      `json:"max_ns"`
	SumNS   float64     `json:"sum_ns"`
	Buckets [][2]uint64 `json:"buckets"` // bucket number, count
}

// MarshalJSON writes the non-empty buckets, so that histograms of several processes can be merged.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	w := wire{MinNS: h.min, MaxNS: h.max, SumNS: h.sum, Buckets: [][2]uint64{}}
	for i, c := range h.counts {
		if c > 0 {
			w.Buckets = append(w.Buckets, [2]uint64{uint64(i), c})
		}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote and replaces the contents.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	*h = Histogram{min: w.MinNS, max: w.MaxNS, sum: w.SumNS}
	for _, p := range w.Buckets {
		if p[0] >= buckets {
			return fmt.Errorf("histogram: bucket %d, want less than %d", p[0], buckets)
		}
		h.add(int(p[0]), p[1])
	}
	return nil
}
