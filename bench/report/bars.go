package report

import (
	"fmt"
	"math"

	"awe4lb/bench/stats"
)

// Keys of the scenarios that have a bar. The runner defines the scenarios; these names tie the two together.
const (
	Keep1   = "keep1"
	Keep64  = "keep64"
	Keep512 = "keep512"
	Open64  = "open64"
	Short64 = "short64"
	Up1     = "up1"
	Up8     = "up8"
	Down1   = "down1"
	Down8   = "down8"
	Both1   = "both1"
	Both8   = "both8"

	UDP1        = "udp1"
	UDP100      = "udp100"
	UDP10k      = "udp10k"
	UDP1Large   = "udp1-1200"
	UDP100Large = "udp100-1200"
	UDP10kLarge = "udp10k-1200"
	UDPTrains   = "udp-trains"
	UDPOpen100  = "udp-open100"
	UDPOver1    = "udp-over1"
	UDPOver100  = "udp-over100"

	TLSFull      = "tls-full"
	TLS12Full    = "tls12-full"
	TLSRSA       = "tls-rsa"
	TLSResumed   = "tls-resumed"
	TLS12Resumed = "tls12-resumed"
	TLSKeep64    = "tls-keep64"
	TLSUp8       = "tls-up8"
	TLSDown8     = "tls-down8"
	TLSFlood     = "tls-flood"
)

// noisySpread: when the quartiles of the rounds' ratios are further apart than this, a figure is called noisy.
const noisySpread = 0.15

// noisyShare: when others use more of the machine than this, or more is stolen, figures are called noisy.
const noisyShare = 0.05

// Bar is one promise of the project, from the table of decisions about the data path.
type Bar struct {
	Figure  string
	Want    float64
	Stretch float64 // 0 = none
	Higher  bool    // more is better
	Unit    string  // "" = a ratio
	measure func(r *Results) Outcome
}

// Outcome is what was measured for a bar.
type Outcome struct {
	Measured  bool
	Value     float64
	Low, High float64 // quartiles of the rounds' ratios; equal for figures that are measured once
	Best      float64 // best run against best run; 0 when there is no such thing
	Rounds    int
	Noise     string // why not to trust it much; "" = steady
}

// Verdict puts an outcome beside its bar in words.
func (b Bar) Verdict(o Outcome) string {
	if !o.Measured {
		return "not measured"
	}
	meets := func(v, bar float64) bool {
		if b.Higher {
			return v >= bar
		}
		return v <= bar
	}
	word := "missed"
	switch {
	case b.Stretch != 0 && meets(o.Value, b.Stretch):
		word = "met, stretch too"
	case meets(o.Value, b.Want):
		word = "met"
	}
	if o.Low < b.Want && b.Want < o.High {
		word += ", within the noise"
	}
	return word
}

// bars lists the promises about what was measured, in the order of the table they come from: a run of one protocol does
// not count the other's as not measured.
func (r *Results) bars() []Bar {
	var out []Bar
	udp, tcp, tls := len(r.Flows) > 0, len(r.Stalls)+len(r.Syscalls) > 0, false
	for _, m := range r.Memory {
		tcp, tls = tcp || m.Kind == "", tls || m.Kind != ""
	}
	for _, v := range r.Verified {
		tcp, tls = tcp || v.Over == "", tls || v.Over != ""
	}
	for _, s := range r.Scenarios {
		udp = udp || s.Unit == PerRoundTrip
		tls = tls || s.TLS
		tcp = tcp || s.Unit != PerRoundTrip && !s.TLS
	}
	if tcp {
		out = tcpBars()
	}
	if udp {
		out = append(out, udpBars()...)
	}
	if tls {
		out = append(out, r.tlsBars()...)
	}
	return append(out, r.guardedBars()...)
}

func tcpBars() []Bar {
	bars := []Bar{
		{"CPU per keep-alive request, 1 connection, vs haproxy", 1.15, 1.0, false, "", paired(Keep1, Reference, CPU, false)},
		{"CPU per keep-alive request, 64 connections, vs haproxy", 1.0, 0.85, false, "", paired(Keep64, Reference, CPU, false)},
		{"CPU per keep-alive request, 512 connections, vs haproxy", 1.0, 0.85, false, "", paired(Keep512, Reference, CPU, false)},
		{"CPU per short connection, 64 parallel, vs haproxy", 0.95, 0.8, false, "", paired(Short64, Reference, CPU, false)},
	}
	bulk := []struct{ key, title string }{
		{Up1, "1 stream up"}, {Up8, "8 streams up"}, {Down1, "1 stream down"}, {Down8, "8 streams down"}, {Both1, "1 stream both ways"}, {Both8, "8 streams both ways"}}
	for _, s := range bulk {
		bars = append(bars, Bar{"CPU per GB, " + s.title + ", vs haproxy", 0.45, 0.35, false, "", paired(s.key, Reference, CPU, false)})
	}
	for _, s := range bulk {
		bars = append(bars, Bar{"CPU per GB, " + s.title + ", vs naive io.Copy", 1.1, 1.0, false, "", paired(s.key, "naive", CPU, false)})
	}
	return append(bars,
		Bar{"requests/s, 64 connections, vs haproxy", 1.0, 1.2, true, "", paired(Keep64, Reference, Rate, true)},
		Bar{"requests/s, 512 connections, vs haproxy", 1.1, 1.4, true, "", paired(Keep512, Reference, Rate, true)},
		Bar{"p99, 64 connections, open loop, vs haproxy", 1.0, 0.8, false, "", paired(Open64, Reference, P99, false)},
		Bar{"p99, 64 connections, closed loop, vs haproxy", 1.0, 0.8, false, "", paired(Keep64, Reference, P99, false)},
		Bar{"user memory per idle proxied connection", 1.0, 0.5, false, "kB", func(r *Results) Outcome {
			m, ok := r.memoryOf("", r.Subject)
			return once(m.PerConnection()/1000, ok)
		}},
		// "One buffer or pipe per direction": the largest buffer configured is 256 KiB; a little for the session itself.
		Bar{"user memory per stalled reader", 0.27, 0.07, false, "MB", func(r *Results) Outcome {
			s, ok := r.stallOf(r.Subject)
			return once(s.PerStream()/1e6, ok)
		}},
		Bar{"system calls per keep-alive request", 4.2, 0, false, "calls", syscalls(PerRequest)},
		Bar{"system calls per short connection", 16, 0, false, "calls", syscalls(PerConnection)},
	)
}

// paired measures the ratio of the subject to a rival, round by round.
func paired(scenario, rival string, m Metric, higher bool) func(r *Results) Outcome {
	return func(r *Results) Outcome { return pairedWith(r.Subject, scenario, rival, m, higher)(r) }
}

// pairedWith is paired for another system than the subject.
func pairedWith(system, scenario, rival string, m Metric, higher bool) func(r *Results) Outcome {
	best := stats.Min
	if higher {
		best = stats.Max
	}
	return func(r *Results) Outcome {
		ratio := r.Ratio(scenario, system, rival, m, best)
		if ratio.Rounds == 0 {
			return Outcome{}
		}
		o := Outcome{Measured: true, Value: ratio.Median, Low: ratio.Low, High: ratio.High, Best: ratio.Best, Rounds: ratio.Rounds}
		if s := ratio.Spread(); s > noisySpread {
			o.Noise = fmt.Sprintf("noisy: rounds spread by %.0f %%", s*100)
		}
		if foreign, steal := r.Noise(scenario); foreign > noisyShare || steal > noisyShare {
			if o.Noise == "" {
				o.Noise = "noisy:"
			} else {
				o.Noise += ","
			}
			o.Noise += fmt.Sprintf(" others used %.0f %%, %.0f %% stolen", foreign*100, steal*100)
		}
		return o
	}
}

func syscalls(unit Unit) func(r *Results) Outcome {
	return func(r *Results) Outcome {
		s, ok := r.syscallsOf(r.Subject, unit)
		if !ok {
			return Outcome{}
		}
		calls, _, _ := s.PerUnit()
		return once(calls, true)
	}
}

// once is an outcome without rounds: counts and memory do not depend on who else uses the machine.
func once(v float64, ok bool) Outcome {
	if !ok || math.IsNaN(v) {
		return Outcome{}
	}
	return Outcome{Measured: true, Value: v, Low: v, High: v, Rounds: 1}
}
