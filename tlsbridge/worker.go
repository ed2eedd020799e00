package tlsbridge

import "sync/atomic"

// worker steps the handshakes of its Conns, always the same ones. Those under way come before new ones: each that ends
// frees its memory, and a flood of ClientHellos does not hold up who is half way through.
type worker struct {
	reclaimer *reclaimer // set once

	// Owned by the worker's goroutine.
	resumed, fresh queue
	told           uint64 // steps when the reclaimer last heard of them
	started        Conn   // head of the list of handshakes that have a coroutine

	// Shared: atomics.
	pushed  atomic.Pointer[Conn] // stack of Conns handed over, the latest first
	closing atomic.Bool
	queued  atomic.Int32
	live    atomic.Int32
	steps   atomic.Uint64 // taken so far

	done, failed, cancelled atomic.Uint64

	// Shared: holds a token when pushed or closing may have changed since the worker looked.
	wake chan struct{}
}

// queue is a list of Conns in the order they came.
type queue struct{ first, last *Conn }

func (q *queue) add(c *Conn) {
	c.link = nil
	if q.first == nil {
		q.first = c
	} else {
		q.last.link = c
	}
	q.last = c
}

func (q *queue) take() *Conn {
	c := q.first
	if c != nil {
		q.first, c.link = c.link, nil
	}
	return c
}

func newWorker(r *reclaimer) *worker {
	w := &worker{reclaimer: r, wake: make(chan struct{}, 1)}
	w.started.next, w.started.prev = &w.started, &w.started
	return w
}

// push hands c to the worker. Safe from any goroutine; never blocks. A Conn is pushed by its caller only, and only while
// the worker does not have it, so that no Conn is there twice.
func (w *worker) push(c *Conn) {
	w.queued.Add(1)
	for {
		top := w.pushed.Load()
		c.link = top
		if w.pushed.CompareAndSwap(top, c) {
			if top == nil { // otherwise whoever pushed top has woken it up
				w.wakeUp()
			}
			return
		}
	}
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// start is the worker's goroutine.
func (w *worker) start(nice, cpu int, started chan<- error) {
	if nice == 0 && cpu < 0 {
		started <- nil
		w.run()
		return
	}
	onOwnThread(func() {
		err := setThread(nice, cpu)
		started <- err
		if err == nil {
			w.run()
		}
	})
}

// run works until closing.
func (w *worker) run() {
	for !w.closing.Load() {
		w.collect()
		c := w.resumed.take()
		if c == nil {
			c = w.fresh.take()
		}
		if c == nil {
			if steps := w.steps.Load(); steps-w.told >= burstSteps {
				w.told = steps
				w.reclaimer.tell()
			}
			<-w.wake
			continue
		}
		w.queued.Add(-1)
		w.steps.Add(1)
		w.advance(c)
	}
	for w.started.next != &w.started {
		c := w.started.next
		c.owner.Store(abandoned)
		w.free(c)
	}
}

// collect moves what was pushed to the queues.
func (w *worker) collect() {
	if w.pushed.Load() == nil {
		return
	}
	var inOrder *Conn
	for c := w.pushed.Swap(nil); c != nil; {
		below := c.link
		c.link = inOrder
		inOrder, c = c, below
	}
	for c := inOrder; c != nil; {
		next := c.link
		if c.handshake.started() {
			w.resumed.add(c)
		} else {
			w.fresh.add(c)
		}
		c = next
	}
}

// advance takes c's handshake as far as what was fed carries it, and gives c back.
func (w *worker) advance(c *Conn) {
	if c.owner.Load() == abandoned {
		w.free(c)
		return
	}
	if !c.handshake.started() {
		w.enlist(c)
	}
	waiting, err := c.handshake.resume(c.tls.Handshake)
	switch {
	case waiting:
		c.in, c.inOff = nil, 0 // all read
	case err != nil:
		c.state, c.err = Failed, err
		w.failed.Add(1)
		w.delist(c)
	default:
		c.state = Open
		c.settle()
		w.done.Add(1)
		w.delist(c)
	}
	if !c.owner.CompareAndSwap(ownedByWorker, ownedByCaller) { // cancelled meanwhile
		w.free(c)
		return
	}
	c.notify()
}

// free ends an abandoned handshake, if it is under way.
func (w *worker) free(c *Conn) {
	if c.next != nil {
		w.cancelled.Add(1)
		c.handshake.free()
		w.delist(c)
	}
}

func (w *worker) enlist(c *Conn) {
	head := &w.started
	c.prev, c.next = head.prev, head
	head.prev.next, head.prev = c, c
	w.live.Add(1)
}

// delist takes c off the list; its stack is gone.
func (w *worker) delist(c *Conn) {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	c.handshake = coroutine{}
	w.live.Add(-1)
}
