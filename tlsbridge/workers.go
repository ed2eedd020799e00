package tlsbridge

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
)

// WorkerOptions say who makes the handshakes.
type WorkerOptions struct {
	// Count is the number of workers; 0 is one per CPU that Go uses (GOMAXPROCS).
	Count int

	// Nice, 1 to 19, makes each worker a thread of its own with that priority, so that handshakes take what time the
	// shards leave: better tail latency of other connections for about 30 % more CPU per handshake. It wants GOMAXPROCS to
	// count the workers, too. 0 leaves scheduling to Go.
	Nice int

	// CPUs, if any, are where the workers run, each on one, round and round. It makes them threads, as Nice does.
	CPUs []int
}

// Workers make handshakes: nothing but computing, so that no number of slow clients keeps one busy.
type Workers struct {
	workers   []*worker  // set once
	reclaimer *reclaimer // set once
	turn      atomic.Uint32
	ended     sync.WaitGroup
}

// NewWorkers starts workers. It fails when the system refuses the priority or a CPU. Stop them with Close.
func NewWorkers(o WorkerOptions) (*Workers, error) {
	if o.Count == 0 {
		o.Count = runtime.GOMAXPROCS(0)
	}
	if o.Count < 0 || o.Nice < 0 || o.Nice > 19 {
		return nil, fmt.Errorf("got %d workers of nice %d; want 0 or more, and 0 to 19", o.Count, o.Nice)
	}
	ws := &Workers{workers: make([]*worker, o.Count)}
	ws.reclaimer = newReclaimer(ws.steps)
	results := make(chan error, o.Count)
	for i := range ws.workers {
		w := newWorker(ws.reclaimer)
		ws.workers[i] = w
		cpu := -1
		if len(o.CPUs) > 0 {
			cpu = o.CPUs[i%len(o.CPUs)]
		}
		ws.ended.Go(func() { w.start(o.Nice, cpu, results) })
	}
	var err error
	for range ws.workers {
		if e := <-results; e != nil {
			err = e
		}
	}
	if err != nil {
		ws.Close()
		return nil, err
	}
	ws.ended.Go(ws.reclaimer.run)
	return ws, nil
}

// Close stops the workers, frees every handshake that is under way, and waits for all of it. Those handshakes never
// notify. To be called when no shard feeds any more, or does not care.
func (ws *Workers) Close() {
	for _, w := range ws.workers {
		w.closing.Store(true)
		w.wakeUp()
	}
	close(ws.reclaimer.stop)
	ws.ended.Wait()
}

// steps returns how many steps of handshakes were taken so far.
func (ws *Workers) steps() (n uint64) {
	for _, w := range ws.workers {
		n += w.steps.Load()
	}
	return n
}

// Params are what a Conn is made of.
type Params struct {
	Config *tls.Config
	Source Source
	// Notify is called on a worker after each Feed, when the Conn is the caller's again and Result says what came of it. It
	// must not block or call the Conn: it posts to the caller's goroutine.
	Notify func()
	// The ends of the connection, for what logs ClientHelloInfo.Conn.
	Local, Remote netip.AddrPort
}

// Server returns a Conn for the TLS server's end of a connection: one that terminates TLS. Feed it the ClientHello.
// Safe from any goroutine; never blocks.
func (ws *Workers) Server(p Params) *Conn {
	c := ws.conn(p)
	c.tls = tls.Server((*shim)(c), p.Config)
	return c
}

// Client returns a Conn for the client's end: one that originates TLS. Feed it nil to begin. Safe from any goroutine;
// never blocks.
func (ws *Workers) Client(p Params) *Conn {
	c := ws.conn(p)
	c.tls = tls.Client((*shim)(c), p.Config)
	return c
}

func (ws *Workers) conn(p Params) *Conn {
	return &Conn{worker: ws.choose(), source: p.Source, notify: p.Notify, local: p.Local, remote: p.Remote}
}

// choose returns the worker with the least to do now, in turn among equals.
func (ws *Workers) choose() *worker {
	n := uint32(len(ws.workers))
	first := ws.turn.Add(1)
	best := ws.workers[first%n]
	for i := range n {
		if w := ws.workers[(first+i)%n]; w.queued.Load() < best.queued.Load() {
			best = w
		}
	}
	return best
}

// WorkerStats are counters since the start, and levels.
type WorkerStats struct {
	Done, Failed, Cancelled uint64 // handshakes, by how they ended; cancelled ones that had begun
	Live                    int    // begun and not ended
	Queued                  int    // with a worker: waiting for it or under its hands
}

// Stats returns the sum over the workers. Safe from any goroutine.
func (ws *Workers) Stats() (s WorkerStats) {
	for _, w := range ws.workers {
		s.Done += w.done.Load()
		s.Failed += w.failed.Load()
		s.Cancelled += w.cancelled.Load()
		s.Live += int(w.live.Load())
		s.Queued += int(w.queued.Load())
	}
	return s
}
