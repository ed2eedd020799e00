package report

import (
	"slices"
	"strings"
)

// The promises about what protects: that it costs little, and that the traffic does not feel its work.

// The subject again: with all that protects switched on, with backends that change all the time besides, and with
// nothing but clients of its API.
const (
	guardedName  = "awe4lb-guarded"
	flappingName = "awe4lb-flapping"
	askedName    = "awe4lb-asked"
	// elsewhere is what the names of the latter two end in where another process has that work: what the traffic feels then is
	// the machine that all share.
	elsewhere = "-elsewhere"
)

// What another process would cost as well is shown beside what awe4lb costs, and is no excuse.
const instead = ", instead of another process"

// guardedBars lists the promises about those of them that took part.
func (r *Results) guardedBars() (bars []Bar) {
	if slices.Contains([]string{guardedName, flappingName, askedName}, strings.TrimSuffix(r.Subject, elsewhere)) {
		return nil
	}
	add := func(figure string, want, stretch float64, scenario, system, rival string, m Metric) {
		if len(r.good(scenario, system)) > 0 {
			bars = append(bars, Bar{figure, want, stretch, false, "", pairedWith(system, scenario, rival, m, false)})
		}
	}
	const with = ", with lists, limits and checks"
	add("CPU per keep-alive request, 64 connections, vs haproxy"+with, 1.0, 0.85, Keep64, guardedName, Reference, CPU)
	add("CPU per short connection, vs haproxy"+with, 0.95, 0.8, Short64, guardedName, Reference, CPU)
	add("p99, 64 connections, open loop, vs haproxy"+with, 1.0, 0.8, Open64, guardedName, Reference, P99)
	add("UDP CPU per round trip, 100 clients, vs nginx"+with, 0.7, 0.6, UDP100, guardedName, UDPReference, CPU)
	add("p99, open loop, 50 changes of backends a second, vs without them", 1.1, 0, Open64, flappingName, guardedName, P99)
	add("p99, open loop, 50 changes of backends a second"+instead, 1.1, 0, Open64, flappingName, flappingName+elsewhere, P99)
	add("CPU per short connection, 50 changes of backends a second, vs without them", 1.1, 0, Short64, flappingName, guardedName, CPU)
	add("p99, open loop, 200 clients of the API, vs without them", 1.05, 0, Open64, askedName, r.Subject, P99)
	add("p99, open loop, 200 clients of the API"+instead, 1.05, 0, Open64, askedName, askedName+elsewhere, P99)
	return bars
}
