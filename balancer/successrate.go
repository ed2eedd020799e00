package balancer

import (
	"math"
	"time"

	"awe4lb/config"
)

// Tally is what came of the attempts to use a backend, since the process began. An attempt that led to a session which the
// backend then reset before it had said anything failed too.
type Tally struct{ Attempts, Failures uint64 }

// judged is what is needed to tell how a backend fares compared with the others. Owned by whoever calls Judge.
type judged struct {
	tally Tally // at the last look
	known bool  // there was one
}

// Verdict is an ejection because of success rates.
type Verdict struct {
	Backend     *Backend
	For         time.Duration // it is ejected
	Rate        float64       // of attempts that succeeded, 0 to 1
	Average     float64       // of the rates of its pool
	Attempts    uint64        // that it goes by
	Interval    time.Duration // in which they were
	NumBackends int           // that were compared
}

// Judges reports whether p wants Judge to be called, and asks for it about now.
func (p *Pool) Judges() (wanted, due bool) {
	o := p.Config.Outliers
	if o == nil || o.SuccessRate == nil {
		return false, false
	}
	at := p.live.judgeAt.Load()
	return true, at == 0 || clock() >= at
}

// Judge compares how often attempts to use the backends of p have succeeded since it was last called, and ejects those that
// are worse than the others by more than chance would have it: as config.SuccessRate says. Backends that are not up, or that
// were used too little, are left out of it; a backend that was ejected so and now does as well as the others is forgiven.
//
// tally says what came of a backend's attempts. One goroutine at a time may call it.
//
// Method: Envoy's success rate outlier detection; a margin is added, without which one failure in a thousand ejects a backend
// where the others have none.
func (p *Pool) Judge(tally func(*Backend) Tally) []Verdict {
	o := p.Config.Outliers
	if o == nil || o.SuccessRate == nil {
		return nil
	}
	s := o.SuccessRate
	p.live.judgeAt.Store(clock() + int64(s.Interval))
	type sample struct {
		*Member
		rate     float64
		attempts uint64
	}
	var samples []sample
	for _, m := range p.Members {
		now, was, known := tally(m.Backend), m.judged.tally, m.judged.known
		m.judged = judged{now, true}
		attempts := now.Attempts - was.Attempts
		if !known || m.Weight() == 0 || m.condition.Load() != 0 || now.Attempts < was.Attempts || attempts < uint64(s.MinRequests) {
			continue
		}
		failures := min(now.Failures-was.Failures, attempts) // those of sessions of earlier may come now
		samples = append(samples, sample{m, 1 - float64(failures)/float64(attempts), attempts})
	}
	if len(samples) < s.MinBackends {
		return nil
	}
	rates := make([]float64, len(samples))
	for i, x := range samples {
		rates[i] = x.rate
	}
	average, deviation := spreadOf(rates)
	bar := threshold(s, average, deviation)
	var verdicts []Verdict
	for { // the worst first, for not all may be ejected
		worst := -1
		for i, x := range samples {
			if x.Member != nil && x.rate < bar && (worst < 0 || x.rate < samples[worst].rate) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		x := samples[worst]
		samples[worst].Member = nil
		if d := p.eject(x.Backend, &x.failures, byRate); d > 0 {
			verdicts = append(verdicts, Verdict{x.Backend, d, x.rate, average, x.attempts, s.Interval, len(samples)})
		}
	}
	for _, x := range samples {
		if x.Member != nil && x.slack.Load() {
			x.slack.Store(false)
			x.ejections.Store(0)
		}
	}
	return verdicts
}

// threshold returns the rate below which a backend is ejected.
func threshold(s *config.SuccessRate, average, deviation float64) float64 {
	const rounding = 1e-9 // backends that are all alike may come out below their average
	return average - max(deviation*float64(s.Deviation)/100, float64(s.Margin)/100) - rounding
}

// spreadOf returns the average of values and their standard deviation, of these alone and not as a sample of others.
func spreadOf(values []float64) (average, deviation float64) {
	for _, v := range values {
		average += v
	}
	average /= float64(len(values))
	for _, v := range values {
		deviation += (v - average) * (v - average)
	}
	return average, math.Sqrt(deviation / float64(len(values)))
}
