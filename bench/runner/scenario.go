package runner

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"awe4lb/bench/report"
)

// scenario is one kind of load, as the generator is told to make it.
type scenario struct {
	report.Scenario
	family family
	bulk   bool // uses the bulk frontend; BulkOnly systems take part
	rsa    bool // TLS: uses the frontend with the RSA certificate
	flood  bool // TLS: RSA handshakes arrive meanwhile; FloodOnly systems take part
	quick  bool // part of --quick

	guarded bool // Guarded systems take part
	flaps   bool // those with Flaps, too, and Asked systems
	args    func(o *Options) []string
}

// scenarios lists the loads that are repeated over rounds.
func scenarios() []scenario {
	keep := func(conns int, quick bool) scenario {
		plural := "s"
		if conns == 1 {
			plural = ""
		}
		return scenario{
			Scenario: report.Scenario{Key: fmt.Sprintf("keep%d", conns), Title: fmt.Sprintf("keep-alive, %d connection%s", conns, plural),
				Note: "requests, closed loop", Unit: report.PerRequest},
			family: overTCP, quick: quick, guarded: conns == 64,
			args: func(*Options) []string { return []string{"requests", "--conns", strconv.Itoa(conns)} },
		}
	}
	bulk := func(key, title string, conns int, quick bool, flags ...string) scenario {
		return scenario{
			Scenario: report.Scenario{Key: key, Title: title, Note: "as fast as it goes", Unit: report.PerGB},
			family:   overTCP, bulk: true, quick: quick,
			args: func(*Options) []string {
				return append([]string{"bulk", "--conns", strconv.Itoa(conns)}, flags...)
			},
		}
	}
	return append([]scenario{
		keep(1, true), keep(64, true), keep(512, false),
		{
			Scenario: report.Scenario{Key: report.Open64, Title: "fixed rate, 64 connections", Note: "requests, open loop",
				Unit: report.PerRequest, Open: true},
			family: overTCP, quick: true, guarded: true, flaps: true,
			args: func(o *Options) []string {
				return []string{"requests", "--conns", "64", "--rate", strconv.FormatFloat(o.Rate, 'f', -1, 64)}
			},
		},
		{
			Scenario: report.Scenario{Key: report.Short64, Title: "short connections", Note: "64 at a time: connect, request, close",
				Unit: report.PerConnection},
			family: overTCP, quick: true, guarded: true, flaps: true,
			args: func(*Options) []string { return []string{"connections", "--conns", "64"} },
		},
		bulk(report.Up1, "1 stream up", 1, false, "--up"),
		bulk(report.Up8, "8 streams up", 8, false, "--up"),
		bulk(report.Down1, "1 stream down", 1, false, "--down"),
		bulk(report.Down8, "8 streams down", 8, true, "--down"),
		bulk(report.Both1, "1 stream both ways", 1, false, "--up", "--down"),
		bulk(report.Both8, "8 streams both ways", 8, false, "--up", "--down"),
	}, slices.Concat(udpScenarios(), tlsScenarios())...)
}

// family is what a program is measured for; it runs in a process of its own for each.
type family string

const (
	overTCP family = "tcp"
	overUDP family = "udp"
	overTLS family = "tls"
)

// Keys of what is measured once, beside the scenarios.
const (
	keyVerify   = "verify"
	keySyscalls = "syscalls"
	keyMemory   = "memory"
	keyStall    = "stall"
	keyFlows    = "udp-flows"

	keyTLSVerify   = "tls-verify"
	keyTLSMemory   = "tls-memory"
	keyTLSHalfOpen = "tls-half-open"
)

// once is what is measured once or a few times.
type once struct {
	key    string
	family family
	quick  bool
}

var onceKeys = []once{{keyVerify, overTCP, true}, {keySyscalls, overTCP, true}, {keyMemory, overTCP, true}, {keyStall, overTCP, false}, {keyFlows, overUDP, true},
	{keyTLSVerify, overTLS, true}, {keyTLSMemory, overTLS, false}, {keyTLSHalfOpen, overTLS, false}}

// groupAll stands for all scenarios in Options.Scenarios, as the name of a family does for all of that.
const groupAll = "all"

// ScenarioKeys lists every name that Options.Scenarios may hold.
func ScenarioKeys() []string {
	out := []string{groupAll, string(overTCP), string(overUDP), string(overTLS)}
	for _, s := range scenarios() {
		out = append(out, s.Key)
	}
	for _, k := range onceKeys {
		out = append(out, k.key)
	}
	return out
}

// order returns the order of n systems in a round: rotated by one from round to round, and backwards every other round,
// so that nobody always runs first, or always after the same neighbour.
func order(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		at := i
		if round%2 == 1 {
			at = n - 1 - i
		}
		out[i] = (at + round/2) % n
	}
	return out
}

// step is one piece of the plan: what the progress line shows, how long it should take, and the work.
type step struct {
	label    string
	estimate time.Duration
	work     func() (note string, err error)
}
