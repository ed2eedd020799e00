package engine

import (
	"net/netip"
	"time"

	"awe4lb/balancer"
	"awe4lb/engine/loop"
	"awe4lb/engine/proxyproto"
	"awe4lb/tlsbridge"
)

// shard is one event loop and everything on it. Its methods run on the loop unless they say otherwise.
type shard struct {
	// Set once, never changed.
	eng    *Engine
	number int // 0, 1, …
	loop   *loop.Loop
	buf    []byte // what is being relayed; holds nothing between events

	// Owned by the shard's goroutine.
	listeners   []*listener
	paused      bool // listeners are off the loop for want of descriptors, memory or room
	resume      loop.Timer
	patience    time.Duration // how long the next pause lasts
	starved     int           // sessions that wait for a descriptor for their backend
	sessions    session       // head of the list of open sessions
	open        int           // its length
	walks       *walk         // head of the list of those under way
	stamped     int64         // when the last session or flow began
	paces       map[*balancer.Backend]*pace
	free        *session // recycled sessions
	freeLen     int
	preludes    *prelude // recycled
	preludesLen int
	meters      *meter // recycled
	metersLen   int
	lines       map[*balancer.Queue]*waitLine // of those who wait for a place; empty ones may be missing
	waiters     *waiter                       // recycled
	waitersLen  int
	proxied     proxyproto.Header // scratch
	pipes       pipes
	splice      bool
	peer        sockaddr        // scratch for accept
	target      sockaddr        // scratch for connect
	turn        int             // goes round the source addresses
	flows       *flows          // nil until there is a UDP frontend
	hello       tlsbridge.Hello // scratch
	bridging    *bridging       // nil until there is TLS
	origins     map[originKey]origin
	lingering   lingerer // head of the list
	lingers     int      // its length
	maxLingers  int      // the next one is closed at once
	frontends   map[string]*FrontendStats
	backends    map[*balancer.Backend]*BackendStats
	gone        []*balancer.Backend // no longer members; see forget
	pools       map[string]*PoolStats
	pruned      *balancer.Snapshot // the last that prune compared the counters with, if it found nobody to wait for; nil: there are new ones
	stats       ShardStats

	// Shared with the access log's goroutine by the ring's own rules; nil when there is no access log.
	access *accessRing
}

// keepFree bounds the recycled sessions a shard keeps after a peak: some 0.5 kB each.
const keepFree = 4096

func newShard(e *Engine, number, readBuffer int) (*shard, error) {
	l, err := loop.New()
	if err != nil {
		return nil, err
	}
	sh := &shard{eng: e, number: number, loop: l, buf: make([]byte, readBuffer),
		frontends: map[string]*FrontendStats{},
		backends:  map[*balancer.Backend]*BackendStats{},
		pools:     map[string]*PoolStats{},
		origins:   map[originKey]origin{},
		paces:     map[*balancer.Backend]*pace{},
		lines:     map[*balancer.Queue]*waitLine{},
	}
	sh.lingering.next, sh.lingering.prev = &sh.lingering, &sh.lingering
	sh.sessions.next, sh.sessions.prev = &sh.sessions, &sh.sessions
	sh.resume.Handle((*resumer)(sh))
	return sh, nil
}

// makeShards makes the shards, as many as it can when one fails; their loops do not run yet.
func (e *Engine) makeShards(o Options) error {
	var loops []*loop.Loop
	for i := range o.Shards {
		sh, err := newShard(e, i, o.ReadBuffer)
		if err != nil {
			return err
		}
		e.shards = append(e.shards, sh)
		loops = append(loops, sh.loop)
	}
	if !o.KeepCalm {
		return nil
	}
	var err error
	if e.calm, err = loop.KeepCalm(loops); err != nil {
		e.log.Debug("moderate load may cost a third more: the runs of Go's monitor thread cannot be counted", "error", err)
	}
	return nil
}

// session returns an unused session on the list of open ones.
func (sh *shard) session() *session {
	s := sh.free
	if s == nil {
		s = newSession(sh)
	} else {
		sh.free, sh.freeLen = s.next, sh.freeLen-1
	}
	head := &sh.sessions
	s.prev, s.next = head.prev, head
	head.prev.next, head.prev = s, s
	sh.open++
	return s
}

// recycle takes an ended session off the list and keeps it for the next client.
func (sh *shard) recycle(s *session) {
	if sh.walks != nil {
		sh.passOver(s)
	}
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	sh.open--
	sh.eng.dismiss()
	if sh.freeLen < keepFree {
		s.next = sh.free
		sh.free, sh.freeLen = s, sh.freeLen+1
	}
	if sh.paused && sh.starved == 0 {
		sh.unpause()
	}
}

// refuse ends a client's connection before it is a session: it is one too many, or comes too late.
func (sh *shard) refuse(l *listener, fd int, address netip.AddrPort, now int64, reason Reason) {
	sh.eng.dismiss()
	l.fstats.Accepted++
	l.fstats.Ended[reason]++
	if sh.access != nil {
		sh.access.push(Record{Start: sh.loop.Time(now), Frontend: l.front.Config.Name, Client: address, Reason: reason}, &sh.stats)
	}
	if !l.address.IsUnix() {
		sysReset(fd)
	}
	sh.loop.Close(fd)
}

// log puts the line of an ended session into the access ring.
func (sh *shard) log(s *session, reason Reason, duration int64) {
	r := Record{Start: sh.loop.Time(s.started), Frontend: s.front.Name, Client: s.address,
		Connect: s.connectedIn, Duration: duration, Attempts: s.attempts, Reason: reason,
		C2B: s.backend.sent, B2C: s.client.sent, ServerName: s.name, TLSVersion: s.version, Detail: s.detail,
		Proxy: s.proxy, ID: s.id}
	if s.pool != nil {
		r.Pool = s.pool.Config.Name
	}
	if s.target != nil {
		r.Backend = s.target.Name
	} else if n := len(s.tried); n > 0 {
		r.Backend = s.tried[n-1].Name
	}
	sh.access.push(r, &sh.stats)
}

// acceptPause is how long a shard leaves its clients in the accept queue when descriptors or memory run out, unless a
// session of its own ends first. It doubles up to maxAcceptPause while nothing gets better: what is missing is then held
// by others. No client is lost: the queue holds them.
const (
	acceptPause    = 50 * time.Millisecond
	maxAcceptPause = time.Second
)

// pause takes the listeners off the loop for a moment.
func (sh *shard) pause() {
	if sh.paused {
		return
	}
	sh.paused = true
	sh.stats.AcceptPauses++
	for _, l := range sh.listeners {
		sh.loop.Forget(l.fd)
	}
	sh.patience = min(max(2*sh.patience, acceptPause), maxAcceptPause)
	sh.loop.After(&sh.resume, sh.loop.Now(), sh.patience)
}

func (sh *shard) unpause() {
	sh.paused = false
	sh.loop.Cancel(&sh.resume)
	for _, l := range sh.listeners {
		if err := sh.loop.Listen(l.fd, l); err != nil {
			sh.pause() // epoll wants memory too
			return
		}
		if l.leaving {
			sh.loop.Post(l.retry)
		}
	}
}

// resumer is the shard as the handler of its resume timer.
type resumer shard

func (r *resumer) Expire() {
	sh := (*shard)(r)
	if sh.starved > 0 { // they come first
		sh.loop.After(&sh.resume, sh.loop.Now(), acceptPause)
		return
	}
	sh.unpause()
}

// frontendStats returns the counters of a frontend by name.
func (sh *shard) frontendStats(name string) *FrontendStats {
	st := sh.frontends[name]
	if st == nil {
		st = NewFrontendStats()
		sh.frontends[name] = st
	}
	return st
}

func (sh *shard) backendStats(b *balancer.Backend) *BackendStats {
	st := sh.backends[b]
	if st == nil {
		st = NewBackendStats()
		sh.backends[b] = st
		sh.pruned = nil
		if !sh.eng.director.Snapshot().Has(b) { // it went before anybody came, whose snapshot is older
			sh.gone = append(sh.gone, b)
		}
	}
	return st
}

func (sh *shard) poolStats(p *balancer.Pool) *PoolStats {
	st := sh.pools[p.Config.Name]
	if st == nil {
		st = NewPoolStats()
		sh.pools[p.Config.Name] = st
		sh.pruned = nil
	}
	return st
}

// endAll ends every session and every flow for the same reason.
func (sh *shard) endAll(reason Reason) {
	if sh.flows != nil {
		sh.flows.endAll(reason)
	}
	for s := sh.sessions.next; s != &sh.sessions; s = sh.sessions.next {
		s.end(reason)
	}
	for l := sh.lingering.next; l != &sh.lingering; l = sh.lingering.next {
		l.end()
	}
}
