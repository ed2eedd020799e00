package balancer

import (
	"net/netip"
	"time"

	"awe4lb/config"
)

// Persistence: a client that comes again gets the backend it had, whatever the policy would say.
//
//	nobody knows it ─────────────▶ the policy picks; the client sticks to that
//	its backend is up, or drains ▶ that one
//	… is at max_connections ─────▶ the policy picks for this once; the client goes on sticking
//	… is down, ejected, in maintenance, gone, or just failed the client ▶ the policy picks, and the client moves
//
// Drain ends the sending of new clients, not that of those who have something there: their sessions are what a drain waits
// for. Who wants them gone says maintenance. In panic (see Pool.Pick) those who stick to a backend that is down or ejected stay
// too: that so many are is more likely wrong than right.
//
// Entries name backends by a hash of their addresses: none is kept alive by one, and one that comes back is known again.

// sticks is what a pool with config.Pool.Persistence has in a snapshot. Immutable but for the table.
type sticks struct {
	table *stickTable
	ttl   uint32 // seconds
	byID  map[uint64]*Member
}

// newSticks returns what p needs, nil without config.Pool.Persistence. It goes on with known, the pool's table up to now, where
// that goes by the same of a client; known may be nil and is left as it is.
func newSticks(c *config.Persistence, members []*Member, known *stickTable) *sticks {
	if c == nil {
		return nil
	}
	by := stickBy{32, 128}
	if c.Key == "prefix" {
		by = stickBy{c.PrefixV4, c.PrefixV6}
	}
	s := &sticks{ttl: uint32((c.TTL + time.Second - 1) / time.Second), byID: make(map[uint64]*Member, len(members))}
	for _, m := range members {
		s.byID[m.id] = m
	}
	s.table = newStickTable(by, c.MaxEntries)
	if known == nil || known.by != by {
		return s
	}
	if known.places() == s.table.places() {
		s.table = known
	} else {
		s.table.copyFrom(known, stickClock(), s.ttl)
	}
	return s
}

// keepSticks has the next snapshots go on with the tables of s.
func (s *Snapshot) keepSticks() {
	for _, p := range s.Pools {
		p.live.sticks = nil
		if p.sticks != nil {
			p.live.sticks = p.sticks.table
		}
	}
}

// chooseSticky is choose for a client that may have a backend already; now is stickClock's.
func (p *Pool) chooseSticky(client netip.Addr, key uint64, tried []*Backend, now uint32) *Backend {
	s := p.sticks
	k := s.table.key(client)
	bucket, counts := s.table.bucket(k)
	had, ok := bucket.find(k, now, s.ttl)
	if !ok {
		counts.skipped.Add(1)
		return p.chooseAny(key, tried)
	}
	switch m := s.byID[had]; {
	case had == 0:
		counts.misses.Add(1)
	case m == nil || !p.keeps(m, tried): // moves
	case m.acquire(m.limit):
		counts.hits.Add(1)
		return m.Backend
	default:
		counts.overflows.Add(1)
		return p.chooseAny(key, tried)
	}
	b := p.chooseAny(key, tried)
	if b == nil {
		return nil
	}
	id, evicted, ok := bucket.put(k, had, b.id, now, s.ttl)
	if evicted {
		counts.evictions.Add(1)
	}
	switch {
	case !ok:
		counts.skipped.Add(1)
	case id == b.id:
		if had != 0 && had != id {
			counts.moves.Add(1)
		}
	default: // the client comes to two shards at once, and the other was faster
		if m := s.byID[id]; m != nil && p.keeps(m, tried) && m.acquire(m.limit) {
			b.release()
			return m.Backend
		}
	}
	return b
}

// keeps reports whether a client that sticks to m is to be sent there, be there room or not.
func (p *Pool) keeps(m *Member, tried []*Backend) bool {
	for _, b := range tried {
		if b == m.Backend {
			return false
		}
	}
	c := m.condition.Load() &^ (isDraining | agentDrains)
	return c == 0 || c&(isInMaintenance|agentMaintains) == 0 && p.inPanic()
}

// keptFull reports whether a client sticks to a backend that it would be sent to, were there room in it, or in the pool that is full,
// though that one may take nobody else: it drains, or has weight 0.
func (p *Pool) keptFull(client netip.Addr, tried []*Backend, full bool) bool {
	k := p.sticks.table.key(client)
	bucket, _ := p.sticks.table.bucket(k)
	had, _ := bucket.find(k, stickClock(), p.sticks.ttl)
	m := p.sticks.byID[had]
	return m != nil && (full || m.limit > 0) && p.keeps(m, tried)
}

// inPanic reports whether too little is up in every tier.
func (p *Pool) inPanic() bool {
	states := p.live.states.Load()
	tiers := *p.tiers.Load()
	for _, t := range tiers {
		if t.up(states) >= p.threshold {
			return false
		}
	}
	return len(tiers) > 0
}

// StickStats is what became of the clients of a pool with persistence. Counters outlive reloads as the entries do.
type StickStats struct {
	Entries    int // clients that have a backend now
	MaxEntries int // config.Persistence.MaxEntries, rounded up to what the table holds

	Hits      uint64 // sessions and flows that got the backend of their client
	Misses    uint64 // those of clients without one
	Moves     uint64 // clients that got another backend, for theirs was not usable
	Overflows uint64 // sessions and flows that went elsewhere for once, their client's backend being at its max_connections
	Evictions uint64 // clients forgotten to make room for another
	Skipped   uint64 // sessions and flows for which the table was not asked: another shard was at work on the place
}

// StickStats returns what became of the clients of p, and whether it has persistence. It looks at all entries, some 2 ns each;
// safe from any goroutine.
func (p *Pool) StickStats() (st StickStats, ok bool) {
	if p.sticks == nil {
		return st, false
	}
	t, now := p.sticks.table, stickClock()
	st.MaxEntries = t.places()
	for i := range t.places() {
		if e := t.at(i); e.id != 0 && !expired(e.used, now, p.sticks.ttl) {
			st.Entries++
		}
	}
	for i := range t.counts {
		c := &t.counts[i]
		st.Hits += c.hits.Load()
		st.Misses += c.misses.Load()
		st.Moves += c.moves.Load()
		st.Overflows += c.overflows.Load()
		st.Evictions += c.evictions.Load()
		st.Skipped += c.skipped.Load()
	}
	return st, true
}

// StickEntry is a client and the backend it has.
type StickEntry struct {
	Client  netip.Prefix  // its address, or the prefix that stands for it
	Backend string        // the address; "" when it is no longer configured: then the client gets another when it comes
	Idle    time.Duration // since it last came, in whole seconds
	Left    time.Duration // until it is forgotten if it does not come
}

// maxStickPage bounds a page of StickEntries.
const maxStickPage = 1000

// StickEntries returns up to limit entries (1 to 1000 are possible), in no order that means something, from a place on, 0 for
// the first page, and the place from which the next page is; -1 when this was the last one. While clients come and go it
// returns each that stays exactly once. Without persistence there are none. Safe from any goroutine.
func (p *Pool) StickEntries(from, limit int) (entries []StickEntry, next int) {
	if p.sticks == nil {
		return nil, -1
	}
	t, ttl, now := p.sticks.table, p.sticks.ttl, stickClock()
	limit = min(max(limit, 1), maxStickPage)
	for i := max(from, 0); i < t.places(); i++ {
		e := t.at(i)
		if e.id == 0 || expired(e.used, now, ttl) {
			continue
		}
		if len(entries) == limit {
			return entries, i
		}
		entries = append(entries, p.sticks.entry(e, now))
	}
	return entries, -1
}

// entry returns what is told of e.
func (s *sticks) entry(e stuck, now uint32) StickEntry {
	entry := StickEntry{Client: s.table.prefix(e.key), Idle: time.Duration(max(int64(now)-int64(e.used), 0)) * time.Second}
	entry.Left = time.Duration(s.ttl)*time.Second - entry.Idle
	if m := s.byID[e.id]; m != nil {
		entry.Backend = m.Name
	}
	return entry
}

// StickEntry returns the entry of a client, or that of the prefix that stands for it, and whether there is one. To look is not
// to come: it is forgotten when it would have been. Safe from any goroutine.
func (p *Pool) StickEntry(client netip.Addr) (StickEntry, bool) {
	if p.sticks == nil || !client.IsValid() {
		return StickEntry{}, false
	}
	t, now := p.sticks.table, stickClock()
	k := t.key(client)
	b, _ := t.bucket(k)
	e := b.entry(k)
	if e.id == 0 || expired(e.used, now, p.sticks.ttl) {
		return StickEntry{}, false
	}
	return p.sticks.entry(e, now), true
}

// Unstick forgets which backend a client has, with all clients of its prefix where those have one together, and reports whether
// it had one. Its sessions go on. Safe from any goroutine, but not for shards: it may wait for one, some nanoseconds as a rule.
func (p *Pool) Unstick(client netip.Addr) bool {
	if p.sticks == nil || !client.IsValid() {
		return false
	}
	t := p.sticks.table
	k := t.key(client)
	b, _ := t.bucket(k)
	return b.remove(k)
}

// UnstickAll is Unstick for all clients, and returns how many entries there were. Those who come meanwhile may stay.
func (p *Pool) UnstickAll() int {
	if p.sticks == nil {
		return 0
	}
	n := 0
	for i := range p.sticks.table.buckets {
		n += p.sticks.table.buckets[i].clear()
	}
	return n
}
