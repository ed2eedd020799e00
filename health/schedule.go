package health

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Probes run in lanes, each with a bounded number at once: a storm is impossible, however many backends there are and
// however slowly they answer. What is due and finds no room waits.
const (
	network = iota
	processes
	numLanes
)

// laneWidth is how many probes of a lane run at once. A thousand backends that all hang for a timeout of 1 s are through in
// 16 s; descriptors for that many are kept back from sessions (engine, keptBack).
var laneWidth = [numLanes]int{network: 64, processes: 8}

func laneOf(c *check) int {
	if c.h.Kind == "exec" {
		return processes
	}
	return network
}

// maxGap is the time between the first probes of two subjects when there are few: the first are probed at once. Many are
// spread over the interval.
const maxGap = 20 * time.Millisecond

// lane is a queue of subjects, the one that is due first in front. Guarded by Prober.mu.
type lane struct {
	most    int // set once
	running int
	queue   queue
}

func (l *lane) add(t *subject, next time.Time) {
	t.next = next
	heap.Push(&l.queue, t)
}

func (l *lane) remove(t *subject) {
	if t.index >= 0 {
		heap.Remove(&l.queue, t.index)
	}
}

// spread sets when subjects that are new are probed first.
func (p *Prober) spread(begin []*subject, now time.Time) {
	for i, t := range begin {
		gap := min(t.check.h.Every(true)/time.Duration(len(begin)), maxGap)
		t.lane.add(t, now.Add(time.Duration(i)*gap+rand.N(gap)))
	}
}

// result is the end of a probe.
type result struct {
	subject *subject
	outcome
	began, ended time.Time
}

// awake has the scheduler look again.
func (p *Prober) awake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// schedule is the goroutine that starts probes when they are due and takes their results.
func (p *Prober) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		case r := <-p.results:
			p.ended(r)
		}
		timer.Reset(p.launch())
	}
}

// launch starts what is due and returns the time until there is more to start; a probe that ends is another occasion.
func (p *Prober) launch() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait := time.Hour
	for i := range p.lanes {
		l := &p.lanes[i]
		for len(l.queue) > 0 && l.running < l.most {
			t := l.queue[0]
			if d := t.next.Sub(now); d > 0 {
				wait = min(wait, d)
				break
			}
			l.remove(t)
			l.running++
			p.running.Go(func() {
				began := time.Now()
				o := p.probe(p.ctx, t.check)
				p.results <- result{t, o, began, time.Now()}
			})
		}
	}
	return wait
}

// ended takes the result of a probe, and plans the next.
func (p *Prober) ended(r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := r.subject
	t.lane.running--
	if t.removed || p.ctx.Err() != nil {
		return
	}
	p.take(t, r.outcome, r.ended.Sub(r.began), r.ended)
	t.lane.add(t, r.began.Add(t.every()))
}

// every returns the time to the next probe: the shorter interval when those who asked disagree.
func (t *subject) every() time.Duration {
	h := t.check.h
	d := time.Duration(0)
	for _, b := range t.backends {
		if every := h.Every(b.streak.up); d == 0 || every < d {
			d = every
		}
	}
	if j := int64(d) * int64(h.Jitter) / 100; j > 0 {
		d += time.Duration(rand.Int64N(2*j+1) - j)
	}
	return d
}

// queue is a heap for container/heap.
type queue []*subject

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].next.Before(q[j].next) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	t := x.(*subject)
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	t := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = nil
	*q = (*q)[:len(*q)-1]
	t.index = -1
	return t
}
