package tlsbridge

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Handshakes leave behind several times what connections keep (40 kB against 5), and Go leaves it there until the heap has
// doubled or two minutes have passed, so that the memory of many silent connections is half garbage. After a burst of
// handshakes, when it is quiet again, the reclaimer collects it and gives it back to the system. To collect more often all
// the time instead (GOGC=50) would cost 5 % of CPU per handshake. Measured 2026-11-25: bench, tls-memory, tls-half-open.
const (
	burstSteps      = 64                     // steps of one worker that make a burst
	burstOver       = 250 * time.Millisecond // without a burst's worth of steps
	reclaimInterval = 10 * time.Second       // at most once in
	reclaimFloor    = 4 << 20                // bytes below which it is not worth while, Go's smallest heap
)

// reclaimer waits for bursts of handshakes to be over.
type reclaimer struct {
	// Set once.
	steps    func() uint64 // taken by all workers so far
	wasteful func() bool
	reclaim  func()
	over     time.Duration
	interval time.Duration
	stop     chan struct{} // closed by Workers.Close

	burst chan struct{} // holds a token when there may have been a burst since the reclaimer looked
}

func newReclaimer(steps func() uint64) *reclaimer {
	return &reclaimer{steps: steps, wasteful: wasteful, reclaim: debug.FreeOSMemory, over: burstOver, interval: reclaimInterval,
		stop: make(chan struct{}), burst: make(chan struct{}, 1)}
}

// tell says that a burst is under way, or has been. Safe from any goroutine; never blocks.
func (r *reclaimer) tell() {
	select {
	case r.burst <- struct{}{}:
	default:
	}
}

// run is the reclaimer's goroutine. It sleeps while no handshakes are made.
func (r *reclaimer) run() {
	for {
		select {
		case <-r.burst:
		case <-r.stop:
			return
		}
		for before := r.steps(); ; {
			if !r.wait(r.over) {
				return
			}
			now := r.steps()
			if now-before < burstSteps {
				break
			}
			before = now
		}
		if !r.wasteful() {
			continue
		}
		r.reclaim()
		if !r.wait(r.interval) {
			return
		}
	}
}

// wait returns false when the reclaimer is to stop.
func (r *reclaimer) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.stop:
		return false
	}
}

// wasteful reports whether much of the heap is likely to be garbage, or free and not given back.
func wasteful() bool {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(samples)
	return worthWhile(samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64())
}

// worthWhile compares what came since the last collection, and what is free, with what was in use then: a collection costs
// CPU by that.
func worthWhile(live, objects, free uint64) bool {
	return objects+free-min(live, objects) > max(reclaimFloor, live/4)
}
