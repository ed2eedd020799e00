// Package report turns what the runner measured into something a person can read and believe: a page of Markdown with
// the bars first and the losses kept, the raw numbers as JSON, and pictures.
//
// It decides nothing about how to measure and reads nothing from the machine; Results is its whole input.
package report

import (
	"math"
	"slices"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/proc"
	"awe4lb/bench/stats"
)

// Reference is the system everything over TCP is compared with.
const Reference = "haproxy"

// Results is everything one `bench run` has found out.
type Results struct {
	Date        time.Time        `json:"date"`
	Commit      string           `json:"commit"` // short; "none" without one
	Dirty       bool             `json:"dirty"`  // the checkout had changes that are not in the commit
	Command     string           `json:"command"`
	Quick       bool             `json:"quick"`
	Subject     string           `json:"subject"` // the system the bars are about
	Machine     proc.Description `json:"machine"`
	LoadBefore  [3]float64       `json:"load_average_before"`
	LoadAfter   [3]float64       `json:"load_average_after"`
	SameSession bool             `json:"same_session"` // every process had the runner's session, hence one autogroup
	Settings    Settings         `json:"settings"`
	Systems     []System         `json:"systems"`
	Scenarios   []Scenario       `json:"scenarios"`
	Runs        []Run            `json:"runs"`
	Latencies   []Latency        `json:"latencies"`
	Memory      []Memory         `json:"memory"`
	Stalls      []Stall          `json:"stalls"`
	Syscalls    []SyscallCount   `json:"syscalls"`
	Flows       []Flows          `json:"flows"`
	Verified    []Verified       `json:"verified"`
	Failures    []Failure        `json:"failures"`
}

// Failure is something that went wrong. Its figures are in no median.
type Failure struct {
	System string `json:"system"` // "" = not the fault of one
	Text   string `json:"text"`
}

// SubjectFailures counts the failures that are not a rival's: a rival that fails is a result, not an accident.
func (r *Results) SubjectFailures() int {
	n := 0
	for _, f := range r.Failures {
		if f.System == r.Subject || f.System == "" {
			n++
		}
	}
	return n
}

// Settings are the knobs of the run that a reader needs to repeat or judge it.
type Settings struct {
	Workers       int     `json:"workers"` // threads, processes or shards of each proxy
	Rounds        int     `json:"rounds"`
	WindowSeconds float64 `json:"window_seconds"`
	WarmupSeconds float64 `json:"warmup_seconds"`
	OpenLoopRate  float64 `json:"open_loop_rate"`
	Nice          int     `json:"nice"` // priority of everything, the load included; 0 = as the shell had it
}

// System is one proxy.
type System struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Note    string `json:"note,omitempty"`    // its settings in words
	Skipped string `json:"skipped,omitempty"` // why it was not measured
}

// Unit is what a scenario counts.
type Unit string

// The units.
const (
	PerRequest    Unit = "request"
	PerConnection Unit = "connection"
	PerGB         Unit = "GB"
	PerRoundTrip  Unit = "round trip" // UDP: a datagram and its answer
	PerHandshake  Unit = "handshake"  // TLS: with its connection and one request
)

// Scenario is one kind of load, run once per round and system.
type Scenario struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Note  string `json:"note"`
	Unit  Unit   `json:"unit"`
	TLS   bool   `json:"tls,omitempty"`  // clients speak TLS
	Open  bool   `json:"open,omitempty"` // open loop: the rate is given, only latency and CPU are measured

	Offered float64 `json:"offered,omitempty"` // per second, when it is not Settings.OpenLoopRate
}

// Run is one scenario, run once against one system.
type Run struct {
	Round      int     `json:"round"`
	Scenario   string  `json:"scenario"`
	System     string  `json:"system"`
	Units      float64 `json:"units"`        // requests, connections, or GB in the window
	Rate       float64 `json:"rate"`         // units per second
	CPU        float64 `json:"cpu_per_unit"` // of the proxy's process tree: us per request or connection, ms per GB
	User       float64 `json:"user_share"`   // share of it spent in user mode, to within the 10 ms of /proc
	Switches   float64 `json:"switches_per_unit"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	P999       float64 `json:"p999_us"`
	LagP99     float64 `json:"generator_lag_p99_us,omitempty"`
	BackendCPU float64 `json:"backend_cpu_per_unit"`
	LoadCPU    float64 `json:"generator_cpu_per_unit"`
	Foreign    float64 `json:"foreign"` // share of the machine used by others
	Steal      float64 `json:"steal"`
	Bound      bool    `json:"generator_bound,omitempty"`
	Sent       float64 `json:"sent,omitempty"`   // UDP: datagrams sent per second
	Loss       float64 `json:"loss,omitempty"`   // UDP: share of them that had no answer
	Moved      int64   `json:"moved,omitempty"`  // UDP: flows that were made anew under way
	Flood      float64 `json:"flood,omitempty"`  // TLS: handshakes per second that were made meanwhile
	Errors     string  `json:"errors,omitempty"` // not empty: the run failed, its figures do not count
}

// Flows is what UDP flows cost a proxy from birth to end. Bytes, and microseconds of CPU per flow.
type Flows struct {
	System         string  `json:"system"`
	Flows          int     `json:"flows"`
	TimeoutSeconds float64 `json:"timeout_s"` // how long they could be idle
	Create         float64 `json:"create_us"` // the first round trip included
	Loss           float64 `json:"loss"`      // share of the first datagrams that had no answer
	Before         int64   `json:"before"`    // PSS of the process tree
	After          int64   `json:"after"`
	IdleCPU        float64 `json:"idle_cpu"`  // cores used while the flows did nothing; -1 when there was no time for it
	Expire         float64 `json:"expire_us"` // -1 when it was not seen
	Overdue        float64 `json:"overdue_s"` // when the last one was gone, counted from its timeout
	Errors         string  `json:"errors,omitempty"`
}

// PerFlow returns bytes of user memory per flow.
func (f Flows) PerFlow() float64 { return float64(f.After-f.Before) / float64(f.Flows) }

// Latency holds all latencies of a scenario and system, over the rounds that did not fail.
type Latency struct {
	Scenario  string          `json:"scenario"`
	System    string          `json:"system"`
	Histogram *hist.Histogram `json:"histogram"`
}

// Memory is user memory (PSS of the process tree) before and with idle connections. Bytes.
type Memory struct {
	System      string  `json:"system"`
	Kind        string  `json:"kind,omitempty"` // of connections: "" = idle TCP, or one of those below
	Connections int     `json:"connections"`
	Before      int64   `json:"before"`
	After       int64   `json:"after"`
	IdleCPU     float64 `json:"idle_cpu"` // cores used while the connections did nothing
	Errors      string  `json:"errors,omitempty"`
}

// Kinds of Memory.
const (
	MemoryTLS      = "tls"       // idle over TLS
	MemoryHalfOpen = "half-open" // TLS: the ClientHello is answered, and the client stays silent
)

// PerConnection returns bytes of user memory per idle proxied connection.
func (m Memory) PerConnection() float64 { return float64(m.After-m.Before) / float64(m.Connections) }

// Stall is what a proxy does while backends push at clients that do not read. Bytes.
type Stall struct {
	System   string `json:"system"`
	Streams  int    `json:"streams"`
	Each     int64  `json:"each"`     // what the backend wants to push down each stream
	Before   int64  `json:"before"`   // PSS of the process tree
	After    int64  `json:"after"`    // the same when nothing moves any more
	Sockets  int64  `json:"sockets"`  // growth of the machine's TCP buffer memory
	Absorbed int64  `json:"absorbed"` // what the backends could push before they had to stop: all buffers and pipes
	Errors   string `json:"errors,omitempty"`
}

// PerStream returns the growth of user memory per stalled stream in bytes.
func (s Stall) PerStream() float64 { return float64(s.After-s.Before) / float64(s.Streams) }

// SyscallCount is the outcome of one strace.
type SyscallCount struct {
	System string        `json:"system"`
	Unit   Unit          `json:"unit"`
	Units  int64         `json:"units"`
	Calls  proc.Syscalls `json:"calls"`
	Errors string        `json:"errors,omitempty"`
}

// PerUnit returns calls per unit; clock readings and the Go runtime's monitor apart.
func (s SyscallCount) PerUnit() (calls, clock, monitor float64) {
	a, b, c := s.Calls.Split()
	n := float64(s.Units)
	return float64(a) / n, float64(b) / n, float64(c) / n
}

// Verified is one byte-by-byte check of bulk streams in both directions.
type Verified struct {
	System string `json:"system"`
	Over   string `json:"over,omitempty"` // "TLS", or "" for plain TCP
	Bytes  int64  `json:"bytes"`
	Errors string `json:"errors,omitempty"`
}

// Metric picks one figure of a run.
type Metric func(Run) float64

// The metrics.
var (
	CPU    Metric = func(r Run) float64 { return r.CPU }
	Rate   Metric = func(r Run) float64 { return r.Rate }
	P50    Metric = func(r Run) float64 { return r.P50 }
	P99    Metric = func(r Run) float64 { return r.P99 }
	P999   Metric = func(r Run) float64 { return r.P999 }
	Switch Metric = func(r Run) float64 { return r.Switches }
	Sent   Metric = func(r Run) float64 { return r.Sent }
	Loss   Metric = func(r Run) float64 { return r.Loss }
	Flood  Metric = func(r Run) float64 { return r.Flood }
)

// Measured returns the systems that took part, in order.
func (r *Results) Measured() []System {
	var out []System
	for _, s := range r.Systems {
		if s.Skipped == "" {
			out = append(out, s)
		}
	}
	return out
}

// good returns the runs of a scenario and system that did not fail.
func (r *Results) good(scenario, system string) []Run {
	var out []Run
	for _, run := range r.Runs {
		if run.Scenario == scenario && run.System == system && run.Errors == "" {
			out = append(out, run)
		}
	}
	return out
}

// Values returns one figure of every good run of a scenario and system.
func (r *Results) Values(scenario, system string, m Metric) []float64 {
	var out []float64
	for _, run := range r.good(scenario, system) {
		out = append(out, m(run))
	}
	return out
}

// Ratio compares two systems over the rounds in which both have a good run.
func (r *Results) Ratio(scenario, a, b string, m Metric, best func([]float64) float64) stats.Ratio {
	byRound := func(system string) map[int]float64 {
		out := map[int]float64{}
		for _, run := range r.good(scenario, system) {
			out[run.Round] = m(run)
		}
		return out
	}
	return stats.Paired(byRound(a), byRound(b), best)
}

// Noise returns the median share of the machine that others used, and that was stolen, while systems ran a scenario.
// An empty scenario means all.
func (r *Results) Noise(scenario string) (foreign, steal float64) {
	var f, s []float64
	for _, run := range r.Runs {
		if scenario == "" || run.Scenario == scenario {
			f, s = append(f, run.Foreign), append(s, run.Steal)
		}
	}
	return stats.Median(f), stats.Median(s)
}

// memoryOf returns the median run of a system's memory measurements of a kind that did not fail.
func (r *Results) memoryOf(kind, system string) (Memory, bool) {
	var all []Memory
	for _, m := range r.Memory {
		if m.System == system && m.Kind == kind && m.Errors == "" {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return Memory{}, false
	}
	slices.SortFunc(all, func(a, b Memory) int { return int(math.Copysign(1, a.PerConnection()-b.PerConnection())) })
	return all[len(all)/2], true
}

func (r *Results) stallOf(system string) (Stall, bool) {
	for _, s := range r.Stalls {
		if s.System == system && s.Errors == "" {
			return s, true
		}
	}
	return Stall{}, false
}

func (r *Results) syscallsOf(system string, unit Unit) (SyscallCount, bool) {
	for _, s := range r.Syscalls {
		if s.System == system && s.Unit == unit && s.Errors == "" {
			return s, true
		}
	}
	return SyscallCount{}, false
}

func (r *Results) latencyOf(scenario, system string) *hist.Histogram {
	for _, l := range r.Latencies {
		if l.Scenario == scenario && l.System == system {
			return l.Histogram
		}
	}
	return nil
}
