// Package stats is the arithmetic of comparing noisy runs: medians, spreads, ratios of runs that were made next to each
// other, and a slope that outliers do not bend. Functions on an empty slice return NaN, which prints as "–" in reports.
package stats

import (
	"math"
	"slices"
)

// Median returns the middle value, or the mean of the middle two.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Min returns the least value: for costs, the run the machine disturbed least.
func Min(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return slices.Min(v)
}

// Max returns the greatest value.
func Max(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return slices.Max(v)
}

// Quantile returns the value at share q (0..1), interpolated between neighbours.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	low := int(at)
	if low+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[low] + (at-float64(low))*(s[low+1]-s[low])
}

// Ratio compares one system with another over rounds.
type Ratio struct {
	Median float64 // of the rounds' ratios: the figure to quote
	Best   float64 // best run against best run: what is left when noise is taken away
	Low    float64 // lower quartile of the rounds' ratios
	High   float64 // upper quartile
	Rounds int
}

// Paired returns the ratio of a to b. a and b hold one figure per round; only rounds in which both have one count, and
// each is divided by its neighbour of the same round, so that a slow minute of the machine, which hits both, cancels
// out. best picks the least disturbed run of each: Min for costs, Max for rates. NaN fields when no round has both.
func Paired(a, b map[int]float64, best func([]float64) float64) Ratio {
	var ratios, as, bs []float64
	for round, x := range a {
		if y, ok := b[round]; ok && y != 0 {
			ratios = append(ratios, x/y)
			as, bs = append(as, x), append(bs, y)
		}
	}
	return Ratio{Median(ratios), best(as) / best(bs), Quantile(ratios, 0.25), Quantile(ratios, 0.75), len(ratios)}
}

// Spread is the distance of the quartiles as a share of the median: 0.1 means that half of the rounds are within 10 %.
func (r Ratio) Spread() float64 { return (r.High - r.Low) / r.Median }

// Slope returns the Theil-Sen slope of y over x: the median of the slopes between all pairs of points. Up to 29 % of the
// points can be wild without moving it. NaN for fewer than two different x.
func Slope(x, y []float64) float64 {
	var slopes []float64
	for i := range x {
		for j := i + 1; j < len(x); j++ {
			if x[i] != x[j] {
				slopes = append(slopes, (y[j]-y[i])/(x[j]-x[i]))
			}
		}
	}
	return Median(slopes)
}
