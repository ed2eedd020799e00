package admin

import (
	"slices"
	"time"

	"awe4lb/balancer"
	"awe4lb/engine"
)

// A sample is what has happened between two looks at the counters, per second, and how things are at the second.

// flowing is what frontends, pools and backends have in common.
type flowing struct {
	Open int64   `json:"open" description:"sessions and UDP flows"`
	New  float64 `json:"new_per_second"`
	C2B  float64 `json:"c2b" description:"bytes per second"`
	B2C  float64 `json:"b2c" description:"bytes per second"`
}

type sample struct {
	Time      time.Time        `json:"time"`
	Version   uint64           `json:"version" description:"of the configuration"`
	Totals    sampleTotals     `json:"totals"`
	Frontends []sampleFrontend `json:"frontends"`
	Pools     []samplePool     `json:"pools"`
}

type sampleTotals struct {
	Sessions   int64    `json:"sessions"`
	Flows      int64    `json:"flows"`
	New        float64  `json:"new_per_second"`
	C2B        float64  `json:"c2b" description:"bytes per second"`
	B2C        float64  `json:"b2c" description:"bytes per second"`
	Errors     float64  `json:"errors_per_second" description:"clients turned away and datagrams dropped on their way to backends"`
	ConnectP50 *float64 `json:"connect_p50" description:"seconds to connect to a backend; null when there was no connection"`
	ConnectP99 *float64 `json:"connect_p99"`
}

type sampleFrontend struct {
	Name string `json:"name"`
	flowing
}

type samplePool struct {
	Name  string `json:"name"`
	Up    int    `json:"up"`
	Down  int    `json:"down" description:"by their checks, or ejected"`
	Other int    `json:"other" description:"drain, maintenance or weight 0"`
	flowing
	Backends []sampleBackend `json:"backends,omitempty" description:"of the pools asked for"`
}

type sampleBackend struct {
	Address string `json:"address"`
	State   string `json:"state"`
	Weight  int    `json:"weight"`
	flowing
	Errors     float64  `json:"errors_per_second" description:"attempts to connect that failed"`
	ConnectP99 *float64 `json:"connect_p99"`
}

// counters are the counters of one moment, of which two make a sample.
type counters struct {
	at    time.Time
	stats *engine.Stats
}

func (s *Server) count() counters {
	return counters{time.Now(), s.o.Engine.Stats()}
}

// since returns what happened from was to now. wanted says of which pools the backends are listed.
func (s *Server) since(was, now *counters, wanted func(pool string) bool) *sample {
	snap, seconds := s.o.Director.Snapshot(), max(now.at.Sub(was.at).Seconds(), 1e-3)
	out := &sample{Time: rounded(now.at), Version: snap.Version, Frontends: []sampleFrontend{}, Pools: []samplePool{}}
	t := &out.Totals
	t.Sessions, _ = s.o.Engine.Sessions()
	t.Flows, _ = s.o.Engine.Flows()
	rate := func(now, was uint64) float64 {
		if now < was { // it began anew
			was = 0
		}
		return float64(now-was) / seconds
	}
	for name, f := range now.stats.Frontends {
		before := was.stats.Frontends[name]
		if before == nil {
			before = noFrontendStats
		}
		t.New += rate(f.Accepted, before.Accepted)
		t.Errors += rate(turnedAway(f), turnedAway(before))
	}
	for _, f := range snap.Frontends {
		n, before := statsOf(now.stats.Frontends[f.Config.Name], noFrontendStats), statsOf(was.stats.Frontends[f.Config.Name], noFrontendStats)
		out.Frontends = append(out.Frontends, sampleFrontend{f.Config.Name, flowing{f.Live.Active(), rate(n.Accepted, before.Accepted),
			rate(n.Bytes[engine.ToBackend], before.Bytes[engine.ToBackend]), rate(n.Bytes[engine.ToClient], before.Bytes[engine.ToClient])}})
	}
	var all engine.Histogram
	for b, n := range now.stats.Backends {
		before := statsOf(was.stats.Backends[b], noBackendStats)
		t.C2B += rate(n.Bytes[engine.ToBackend], before.Bytes[engine.ToBackend])
		t.B2C += rate(n.Bytes[engine.ToClient], before.Bytes[engine.ToClient])
		addSince(&all, &n.Connect, &before.Connect)
	}
	t.ConnectP50, t.ConnectP99 = percentile(&all, 0.5), percentile(&all, 0.99)
	for _, p := range snap.Pools {
		sp := samplePool{Name: p.Config.Name}
		list := wanted(p.Config.Name)
		for _, m := range p.Members {
			b := sampleBackendOf(m, statsOf(now.stats.Backends[m.Backend], noBackendStats), statsOf(was.stats.Backends[m.Backend], noBackendStats), rate)
			switch b.State {
			case "up":
				sp.Up++
			case "down", "ejected":
				sp.Down++
			default:
				sp.Other++
			}
			sp.Open += b.Open
			sp.New += b.New
			sp.C2B += b.C2B
			sp.B2C += b.B2C
			if list {
				sp.Backends = append(sp.Backends, b)
			}
		}
		out.Pools = append(out.Pools, sp)
	}
	return out
}

func sampleBackendOf(m *balancer.Member, now, was *engine.BackendStats, rate func(now, was uint64) float64) sampleBackend {
	var errors, before uint64
	for i := range now.ConnectErrors {
		errors += now.ConnectErrors[i]
		before += was.ConnectErrors[i]
	}
	var connects engine.Histogram
	addSince(&connects, &now.Connect, &was.Connect)
	return sampleBackend{Address: m.Name, State: stateOf(m), Weight: m.Weight(),
		flowing: flowing{m.Active(), rate(now.Sessions, was.Sessions), rate(now.Bytes[engine.ToBackend], was.Bytes[engine.ToBackend]),
			rate(now.Bytes[engine.ToClient], was.Bytes[engine.ToClient])},
		Errors: rate(errors, before), ConnectP99: percentile(&connects, 0.99)}
}

func statsOf[T any](st, none *T) *T {
	if st == nil {
		return none
	}
	return st
}

// turnedAway returns how many clients of a frontend got nothing.
func turnedAway(f *engine.FrontendStats) (n uint64) {
	for _, r := range rejected {
		n += f.Ended[r]
	}
	for _, dropped := range f.Dropped[engine.ToBackend] {
		n += dropped
	}
	return n
}

// addSince adds to sum what came into a histogram from was to now.
func addSince(sum, now, was *engine.Histogram) {
	sum.Bounds = now.Bounds
	for i, n := range now.Counts {
		if n >= was.Counts[i] {
			sum.Counts[i] += n - was.Counts[i]
		}
	}
}

// percentile returns the value in seconds below which a share of a histogram lies, straight between the bounds of its
// bucket; nil when the histogram is empty. What is above all bounds counts as the last.
func percentile(h *engine.Histogram, share float64) *float64 {
	total := uint64(0)
	for _, n := range h.Counts {
		total += n
	}
	if total == 0 {
		return nil
	}
	rank, below := share*float64(total), uint64(0)
	for i, bound := range h.Bounds {
		if n := h.Counts[i]; n > 0 && float64(below+n) >= rank {
			low := 0.0
			if i > 0 {
				low = h.Bounds[i-1]
			}
			v := low + (bound-low)*(rank-float64(below))/float64(n)
			return &v
		}
		below += h.Counts[i]
	}
	v := h.Bounds[len(h.Bounds)-1]
	return &v
}

// The history covers a quarter of an hour.
const (
	historyStep  = 5 * time.Second
	historySteps = 180
)

// lastStep are the counters at both ends of the last step; both are the same before the first has passed, and all rates 0.
type lastStep struct{ was, now counters }

// history is what the charts of the page begin with.
type history struct {
	Step   float64   `json:"step_seconds"`
	End    time.Time `json:"end" description:"of the last value"`
	Series series    `json:"series"`
}

// series have the same length, at most 180, the oldest first.
type series struct {
	Sessions   []int64    `json:"sessions"`
	Flows      []int64    `json:"flows"`
	New        []float64  `json:"new_per_second"`
	C2B        []float64  `json:"c2b" description:"bytes per second"`
	B2C        []float64  `json:"b2c" description:"bytes per second"`
	Errors     []float64  `json:"errors_per_second"`
	ConnectP50 []*float64 `json:"connect_p50" description:"seconds; null where there was no connection"`
	ConnectP99 []*float64 `json:"connect_p99"`
}

func newSeries() series {
	return series{[]int64{}, []int64{}, []float64{}, []float64{}, []float64{}, []float64{}, []*float64{}, []*float64{}}
}

// add appends to a copy: others may be reading the one before.
func (s series) add(t *sampleTotals) series {
	return series{appended(s.Sessions, t.Sessions), appended(s.Flows, t.Flows), appended(s.New, t.New), appended(s.C2B, t.C2B),
		appended(s.B2C, t.B2C), appended(s.Errors, t.Errors), appended(s.ConnectP50, t.ConnectP50), appended(s.ConnectP99, t.ConnectP99)}
}

func appended[T any](list []T, v T) []T {
	if len(list) >= historySteps {
		list = list[len(list)-historySteps+1:]
	}
	return append(slices.Clip(list), v)
}

// keepHistory looks at the counters every historyStep until Stop.
func (s *Server) keepHistory() {
	ticker := time.NewTicker(historyStep)
	defer ticker.Stop()
	was := s.last.Load().now
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		now := s.count()
		s.last.Store(&lastStep{was, now})
		totals := s.since(&was, &now, func(string) bool { return false }).Totals
		s.history.Store(&history{Step: historyStep.Seconds(), End: rounded(now.at), Series: s.history.Load().Series.add(&totals)})
		was = now
	}
}

func (s *Server) showHistory(*call) (any, error) { return s.history.Load(), nil }
