package engine

import (
	"math"
	"net/netip"
	"strconv"
	"time"

	"awe4lb/balancer"
)

// flow is a UDP client (its address and port, and the address of ours it sent to) and the backend chosen for it. It has
// no pointers: see flowTable. Its life:
//
//	         open                   answered
//	datagram ───▶ UNREPLIED ───────────────────────▶ REPLIED
//	               │ │ ▲                              │ │ │
//	               │ │ └──── move: backend gone ──────┘ │ │
//	               │ │                                  │ │
//	               │ └─ max_requests ──▶ SPENT ◀────────┘ │
//	               │                      │               │
//	               │ unreplied_timeout,   │ unreplied_    │ idle_timeout,
//	               │ evicted              │ timeout       │ max_responses
//	               ▼                      ▼               ▼
//	             end(reason): exactly once, exactly one reason
//
// UNREPLIED: the backend has said nothing yet. Such a flow may be one packet of a flood, so it lives short and makes room
// for others when all places are taken. REPLIED: there was an answer. SPENT: the client's next datagram begins another
// flow; this one only waits for the answers it is owed.
type flow struct {
	// Set by open.
	key     flowKey
	hash    uint32 // of key
	number  uint32 // its name in flowTable
	front   uint32 // number in flows.fronts: whose settings and counters
	started int64  // loop time, ns

	// Set by connect. target is 0 between backends.
	target uint32 // number in flows.targets
	fd     int32  // connected to it; -1 where the shard's socket is shared (AnyIP)
	source uint16 // number in flows.sources: whose lease it holds; noSource when its address is the client's
	held   uint16 // number in flows.held: where its source counts it; 0 nowhere
	lease  uint32 // stands for its local port; in AnyIP for its address

	// What has happened.
	last      uint32    // tick of the last datagram either way
	waited    uint32    // us from started to the first answer; 0: none yet
	asked     uint32    // datagrams of the client for this backend
	answered  uint32    // datagrams of this backend
	datagrams [2]uint64 // by ToClient and ToBackend, as sent
	bytes     [2]uint64
	lastCount uint8 // datagrams of the last call that sent some to the backend
	attempts  uint8 // backends so far
	state     flowState
	flags     flowFlags

	// Links, by number. slot (1 + that of the wheel; 0 when not on it), prev and next are flowWheel's; next also links unused
	// flows. older and newer are those of a list of unreplied flows.
	slot         uint16
	prev, next   uint32
	older, newer uint32

	intro uint32 // number in flows.intros; 0 none, which most have

	// Scratch: the flow's datagrams in the batch of that epoch.
	epoch      uint64
	head, tail uint16
}

type flowState uint8

const (
	unreplied flowState = iota
	replied
	spent
)

type flowFlags uint8

const (
	noTrainUp   flowFlags = 1 << iota // the path to the backend refuses UDP_SEGMENT
	noTrainDown                       // the path to the client does
	wasRefused                        // flows.refusals has something about it
	inIndex                           // the client's next datagram finds it
	ownSocket                         // counted on the engine's limit of sockets
	hasGRO                            // its socket joins datagrams
	waits                             // on its front's list of flows without an answer
)

const noSource = math.MaxUint16

// clientIP returns the client's address without its zone.
func (k *flowKey) clientIP() netip.Addr { return netip.AddrFrom16(k.client).Unmap() }

// poolKey returns what the policy of a pool goes by.
func (k *flowKey) poolKey(pool *balancer.Pool) uint64 {
	return pool.Key(netip.AddrPortFrom(k.clientIP(), k.port), nil)
}

// clientAddr returns the client's address and port. It allocates for a link-local client only.
func (k *flowKey) clientAddr() netip.AddrPort {
	a := k.clientIP()
	if k.zone != 0 && a.Is6() {
		a = a.WithZone(strconv.Itoa(int(k.zone)))
	}
	return netip.AddrPortFrom(a, k.port)
}

// open begins the flow of a key that has none, and returns it or the reason for which its datagram is dropped. to is the
// backend, on which the caller has counted the flow, or nil to have one picked.
func (fl *flows) open(l *datagramListener, key *flowKey, hash uint32, to *balancer.Backend) (*flow, DropReason) {
	f, reason := fl.tryOpen(l, key, hash, to)
	if f == nil && to != nil {
		to.Release()
	}
	return f, reason
}

func (fl *flows) tryOpen(l *datagramListener, key *flowKey, hash uint32, to *balancer.Backend) (*flow, DropReason) {
	front := l.front
	if l.closing || fl.draining {
		return nil, DropDraining
	}
	g := guardOf(front.front)
	if !g.allows(key.clientIP()) {
		return nil, DropDenied
	}
	begun := fl.sh.loop.Now()
	if !fl.affords(begun) {
		return nil, DropOverload
	}
	if u := &front.config.UDP; u.NewFlowRate > 0 && !front.rate.allow(prefixHash(key.clientIP(), u.NewFlowPrefixV4, u.NewFlowPrefixV6),
		fl.sh.eng.clock(), u.NewFlowRate, u.NewFlowRate) {
		return nil, DropRate
	}
	held, reason := g.admitFlow(key.clientIP(), front.stats)
	if reason != kept {
		return nil, reason
	}
	flags, ok := fl.makeRoom(front)
	if !ok {
		held.dismiss(key.clientIP())
		return nil, DropTableFull
	}
	f := fl.table.alloc()
	f.key, f.hash, f.front, f.flags = *key, hash, front.number, flags
	f.started, f.last, f.source, f.held = fl.sh.stamp(begun), uint32(fl.now), noSource, fl.hold(held)
	if key.via != 0 {
		fl.recall(f)
	}
	if reason := fl.choose(f, to, nil); reason != kept {
		flags = f.flags
		fl.forgetIntro(f)
		fl.letGo(f)
		fl.table.release(f)
		fl.giveRoom(front, flags)
		fl.spend(fl.sh.loop.Now() - begun)
		return nil, reason
	}
	fl.table.put(f, hash)
	f.flags |= inIndex
	front.await(&fl.table, f)
	front.flows++
	if key.via != 0 {
		fl.proxies.acquire(key.via)
	}
	front.stats.Accepted++
	l.binding.flows.Add(1)
	fl.schedule(f)
	fl.spend(fl.sh.loop.Now() - begun)
	return f, kept
}

// choose gives f a backend that is not in tried, and a way to it. to is as for open.
func (fl *flows) choose(f *flow, to *balancer.Backend, tried []*balancer.Backend) DropReason {
	if to != nil {
		return fl.connect(f, fl.targetOf(to))
	}
	client := f.key.clientIP()
	pool := fl.route(fl.listeners[f.key.listener], fl.fronts[f.front], client)
	if pool == nil {
		return DropNoRoute
	}
	key := f.key.poolKey(pool)
	reason := kept
	for range max(pool.Config.ConnectAttempts, 1) {
		b, lack := pool.PickOrWhy(client, key, tried)
		if b == nil {
			if reason == kept {
				fl.sh.poolStats(pool).turnAway(lack)
				reason = dropOf(lack)
			}
			return reason
		}
		reason = fl.connect(f, fl.targetOf(b))
		if reason == kept {
			return kept
		}
		b.Release()
		if reason != DropUnreachable {
			return reason
		}
		tried = append(tried, b) // rare: no route to it, or of another family than the client it is to see
	}
	return reason
}

// move takes f to a backend that is not in tried. Where there is none f has ended for that reason, and it returns why its datagrams
// are dropped.
func (fl *flows) move(f *flow, tried []*balancer.Backend, reason Reason) DropReason {
	old := fl.targets[f.target].backend
	fl.disconnect(f)
	drop := DropNoBackend
	if f.key.target == 0 { // in mode datagram a flow belongs to its backend, and the next datagram is balanced without it
		drop = fl.choose(f, nil, tried)
	}
	old.Release() // after choosing, so that its load counted
	if drop != kept {
		fl.finish(f, old, reason)
		return drop
	}
	fl.sh.stats.FlowMoves++
	f.asked, f.answered = 0, 0
	if f.state == replied {
		f.state = unreplied
	}
	fl.fronts[f.front].await(&fl.table, f)
	fl.reschedule(f)
	return kept
}

// markReplied notes the first answer of f's backend.
func (fl *flows) markReplied(f *flow) {
	if f.state == unreplied {
		f.state = replied
	}
	fl.fronts[f.front].heard(&fl.table, f)
	fl.forgive(f)
	if f.waited == 0 {
		waited := fl.sh.loop.Now() - f.started
		f.waited = uint32(min(max(waited/1000, 1), math.MaxUint32))
		t := fl.targets[f.target]
		t.stats.Reply.observe(waited)
		if t.refusal > 0 {
			t.backend.Answered(time.Duration(waited))
		}
	}
}

// spendFlow makes the client's next datagram begin another flow.
func (fl *flows) spendFlow(f *flow) {
	f.state = spent
	fl.unindex(f)
	fl.reschedule(f)
}

func (fl *flows) unindex(f *flow) {
	if f.flags&inIndex != 0 {
		f.flags &^= inIndex
		fl.table.remove(f)
	}
}

// end ends f.
func (fl *flows) end(f *flow, reason Reason) {
	b := fl.targets[f.target].backend
	fl.disconnect(f)
	b.Release()
	fl.finish(f, b, reason)
}

// finish ends f, whose last backend was b and which has none now.
func (fl *flows) finish(f *flow, b *balancer.Backend, reason Reason) {
	front := fl.fronts[f.front]
	fl.wheel.remove(f)
	fl.unindex(f)
	front.heard(&fl.table, f)
	fl.forgive(f)
	duration := fl.sh.loop.Now() - f.started
	front.stats.Ended[reason]++
	front.stats.Duration.observe(duration)
	if fl.sh.access != nil {
		via, id := fl.told(f)
		fl.sh.access.push(Record{Start: fl.sh.loop.Time(f.started), Frontend: front.name, Pool: b.Pool, Backend: b.Name,
			Client: f.key.clientAddr(), Proxy: via, ID: id, UDP: true, Connect: int64(f.waited) * 1000, Duration: duration, Attempts: f.attempts, Reason: reason,
			C2B: f.bytes[ToBackend], B2C: f.bytes[ToClient], Asked: f.datagrams[ToBackend], Answered: f.datagrams[ToClient]}, &fl.sh.stats)
	}
	front.flows--
	fl.giveRoom(front, f.flags)
	l := fl.listeners[f.key.listener]
	if f.key.via != 0 {
		fl.proxies.release(f.key.via)
	}
	fl.forgetIntro(f)
	fl.letGo(f)
	fl.table.release(f)
	if l.binding.flows.Add(-1) == 0 && l.closing {
		fl.sh.eng.sweep()
	}
}

// await puts f at the end of the list of those without an answer, if it is not there.
func (fr *front) await(t *flowTable, f *flow) {
	if f.flags&waits == 0 {
		f.flags |= waits
		fr.unreplied.push(t, f)
	}
}

// heard takes f off that list, if it is there.
func (fr *front) heard(t *flowTable, f *flow) {
	if f.flags&waits != 0 {
		f.flags &^= waits
		fr.unreplied.remove(t, f)
	}
}

// flowList is a list of flows without an answer, the oldest first.
type flowList struct{ oldest, newest uint32 }

func (q *flowList) push(t *flowTable, f *flow) {
	f.older, f.newer = q.newest, 0
	if q.newest != 0 {
		t.at(q.newest).newer = f.number
	} else {
		q.oldest = f.number
	}
	q.newest = f.number
}

func (q *flowList) remove(t *flowTable, f *flow) {
	if f.older != 0 {
		t.at(f.older).newer = f.newer
	} else {
		q.oldest = f.newer
	}
	if f.newer != 0 {
		t.at(f.newer).older = f.older
	} else {
		q.newest = f.older
	}
	f.older, f.newer = 0, 0
}
