package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"awe4lb/bench/stats"
)

// UDPReference is the system that everything over UDP is compared with: haproxy relays none.
const UDPReference = "nginx"

// udpBars lists the promises about UDP in the order of the table they come from.
func udpBars() []Bar {
	bars := []Bar{
		{"UDP CPU per round trip, 1 client, vs nginx", 0.75, 0.5, false, "", paired(UDP1, UDPReference, CPU, false)},
		{"UDP CPU per round trip, 100 clients, vs nginx", 0.7, 0.6, false, "", paired(UDP100, UDPReference, CPU, false)},
		{"UDP CPU per round trip, 10,000 clients, vs nginx", 0.62, 0.5, false, "", paired(UDP10k, UDPReference, CPU, false)},
		{"UDP CPU per round trip, trains of 1200 bytes, vs nginx", 0.6, 0.35, false, "", paired(UDPTrains, UDPReference, CPU, false)},
		{"UDP goodput, 200,000/s offered, 1 client, vs nginx", 1.8, 2.5, true, "", paired(UDPOver1, UDPReference, Rate, true)},
		{"UDP goodput, 200,000/s offered, 100 clients, vs nginx", 1.3, 1.6, true, "", paired(UDPOver100, UDPReference, Rate, true)},
	}
	flow := func(of func(Flows) float64) func(r *Results) Outcome {
		return func(r *Results) Outcome {
			f, ok := r.flowsOf(r.Subject)
			v := of(f)
			return once(v, ok && v >= 0)
		}
	}
	return append(bars,
		Bar{"UDP user memory per flow", 0.6, 0.4, false, "kB", flow(func(f Flows) float64 { return max(0, f.PerFlow()/1000) })},
		Bar{"UDP CPU to expire a flow", 5, 4, false, "µs", flow(func(f Flows) float64 { return f.Expire })},
		// "About none": a timer that fires once a second costs less than a thousandth of a core.
		Bar{"UDP CPU with idle flows open", 0.2, 0, false, "% of a core", flow(func(f Flows) float64 { return f.IdleCPU * 100 })},
	)
}

// flowsOf returns the median of a system's flow measurements that did not fail: by memory, expiry and the rest each.
func (r *Results) flowsOf(system string) (Flows, bool) {
	var all []Flows
	for _, f := range r.Flows {
		if f.System == system && f.Errors == "" && f.Flows > 0 {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return Flows{}, false
	}
	slices.SortFunc(all, func(a, b Flows) int { return int(a.After - a.Before - b.After + b.Before) })
	out := all[len(all)/2]
	middle := func(of func(Flows) float64) float64 {
		var v []float64
		for _, f := range all {
			if x := of(f); x >= 0 {
				v = append(v, x)
			}
		}
		if len(v) == 0 {
			return -1
		}
		return stats.Median(v)
	}
	out.Create = middle(func(f Flows) float64 { return f.Create })
	out.Expire = middle(func(f Flows) float64 { return f.Expire })
	out.IdleCPU = middle(func(f Flows) float64 { return f.IdleCPU })
	return out, true
}

// udpScenario writes the table of one scenario over UDP.
func (p *page) udpScenario(s Scenario) {
	r := p.r
	p.f("\n## %s\n\n", s.Title)
	foreign, steal := r.Noise(s.Key)
	p.f("%s", strings.ToUpper(s.Note[:1])+s.Note[1:])
	if s.Open {
		p.f(", %s datagrams/s offered; latency counts from the intended send time, and what is not sent within 20 ms of it is left out", thousands(s.Offered))
		if lag := r.lag(s.Key); !math.IsNaN(lag) {
			p.f(" (the generator's own delay: p99 %s µs)", fixed(lag, 0))
		}
	}
	p.f(". While it ran, others used %.0f %% of the machine and %.0f %% were stolen.\n", foreign*100, steal*100)
	p.header("system", ">round trips/s", ">best", ">ratio", ">sent/s", ">lost", ">CPU per round trip, µs", ">min", ">**ratio**", ">quartiles", ">best/best",
		">switches", ">p50 µs", ">p99 µs", ">CPU of generator + echo, µs", ">rounds")
	for _, sys := range r.Measured() {
		runs := r.good(s.Key, sys.Name)
		if len(runs) == 0 {
			if n := r.attempts(s.Key, sys.Name); n > 0 {
				p.row(p.name(sys.Name), fmt.Sprintf("all %d runs failed", n))
			}
			continue
		}
		median := func(m Metric) float64 { return stats.Median(r.Values(s.Key, sys.Name, m)) }
		rates := r.Values(s.Key, sys.Name, Rate)
		cells := []string{p.name(sys.Name), thousands(stats.Median(rates)), thousands(stats.Max(rates)),
			"×" + fixed(r.Ratio(s.Key, sys.Name, UDPReference, Rate, stats.Max).Median, 2), thousands(median(Sent)), fixed(100*median(Loss), 2) + " %"}
		if cpus := r.Values(s.Key, sys.Name, CPU); stats.Max(cpus) > 0 {
			ratio := r.Ratio(s.Key, sys.Name, UDPReference, CPU, stats.Min)
			cells = append(cells, fixed(stats.Median(cpus), 1), fixed(stats.Min(cpus), 1), "**×"+fixed(ratio.Median, 2)+"**",
				fixed(ratio.Low, 2)+"–"+fixed(ratio.High, 2), "×"+fixed(ratio.Best, 2), fixed(median(Switch), 2))
		} else {
			cells = append(cells, "–", "–", "–", "–", "–", "–")
		}
		rounds := strconv.Itoa(len(runs))
		if failed := r.attempts(s.Key, sys.Name) - len(runs); failed > 0 {
			rounds += fmt.Sprintf(", %d failed", failed)
		}
		if n := r.movedFlows(s.Key, sys.Name); n > 0 {
			rounds += fmt.Sprintf(", %d flows made anew", n)
		}
		p.row(append(cells, fixed(median(P50), 0), fixed(median(P99), 0),
			fixed(median(func(r Run) float64 { return r.LoadCPU + r.BackendCPU }), 1), rounds)...)
	}
}

// movedFlows counts the flows that a system forgot while they were in use.
func (r *Results) movedFlows(scenario, system string) int64 {
	n := int64(0)
	for _, run := range r.good(scenario, system) {
		n += run.Moved
	}
	return n
}

// flows writes what flows cost.
func (p *page) flows() {
	if len(p.r.Flows) == 0 {
		return
	}
	first := p.r.Flows[0]
	p.f("\n## The life of UDP flows\n\nA fresh process gets one datagram from each of many clients, is left alone, and forgets the flows when they have been idle for\n")
	p.f("%s s. CPU to make a flow includes its first round trip. Expiry is seen by the sockets that go; \"overdue\" is when the last one\n", trim(first.TimeoutSeconds))
	p.f("was gone, counted from its timeout. Memory is user memory (PSS); the kernel's sockets cost every proxy the same. kB are 1000 bytes.\n")
	p.header("system", ">flows", ">before, MB", ">with, MB", ">**kB per flow**", ">**CPU to make one, µs**", ">**to expire one, µs**", ">cores used while idle", ">overdue, s", ">first datagrams lost")
	known := func(v float64, decimals int) string {
		if v < 0 {
			return "–"
		}
		return fixed(v, decimals)
	}
	for _, s := range p.r.Measured() {
		f, ok := p.r.flowsOf(s.Name)
		if !ok {
			continue
		}
		p.row(p.name(s.Name), thousands(float64(f.Flows)), fixed(float64(f.Before)/1e6, 1), fixed(float64(f.After)/1e6, 1), "**"+fixed(f.PerFlow()/1000, 2)+"**",
			"**"+fixed(f.Create, 1)+"**", "**"+known(f.Expire, 1)+"**", known(f.IdleCPU, 4), fixed(f.Overdue, 2), fixed(100*f.Loss, 2)+" %")
	}
}
