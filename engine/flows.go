package engine

import (
	"math"
	"net/netip"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"
)

// flows is the datagram half of a shard: its UDP listeners, its flows, and what they share. Owned by the shard's
// goroutine. It is made when the first UDP frontend comes.
//
// Where to read on: flow.go has the life of a flow, datagram.go what clients send, reply.go what backends answer,
// proxied.go who the client is where proxies tell, announce.go what backends are told, flowsocket.go the way to a backend, refused.go what happens when nobody is there, send.go how datagrams leave;
// flowtable.go, flowwheel.go, flowports.go, flowrate.go, proxysockets.go and slab.go are the structures.
type flows struct {
	sh *shard

	table flowTable
	wheel flowWheel
	timer loop.Timer // for the wheel
	armed int64      // the tick it is set for; math.MaxInt64 when it is not set
	now   int64      // tick of the event at hand
	owner []uint32   // flow by descriptor; 0 none

	// What flows name by number, because they have no pointers. Entry 0 is unused; a nil entry is free.
	fronts    []*front
	targets   []*target
	listeners []*datagramListener
	sources   []*flowSource // from 0

	byName    map[string]*front
	byBackend map[*balancer.Backend]*target
	bySource  map[netip.Addr]uint16
	held      []heldTable                    // where flows are counted by source; 0 unused
	proxies   proxySockets                   // that have told of clients
	intros    slab[introduction]             // of flows whose clients they told of, or whose backends are told
	refusals  map[uint32][]*balancer.Backend // by flow: the backends that have refused it since it last had an answer
	draining  bool                           // the process is about to end: no new flows, and quiet ones end soon

	// The time that new flows may take while clients queue: see affords.
	credit   int64 // ns
	creditAt int64 // loop time at which credit was last reckoned
	queued   bool  // the receive at hand filled its batch: more are waiting

	// Scratch of one event.
	in, out *batch // from clients, from backends
	joined  *batch // datagrams of in with a header before each; nil until somebody wants that
	apart   *batch // datagrams of in that the kernel had joined; the same
	joins   []slot // of joined
	single  []byte // one datagram with a header, to be sent again
	epoch   uint64 // counts the batches taken into in
	next    [inBatch]uint16
	segment [inBatch]uint16
	order   []uint32 // flows, or targets of the sendonly kind, that have datagrams in the batch
	chains  [inBatch]slotChain
	slots   []slot
	o       outgoing
	errors  errorQueue
	quotes  quotes
	lately  sentLately
}

const (
	inBatch  = 32 // datagrams taken at once from clients: more gains nothing and costs fairness (research/udp.md, section 1)
	outBatch = 8  // from a backend, of one flow
)

// front is a UDP frontend on this shard, as long as a listener or a flow is of it.
type front struct {
	// Set once, never changed.
	number uint32
	name   string

	// Changed by a reload.
	front  *balancer.Frontend // as last committed
	config *config.Frontend
	rate   *rateTable // shared by all shards; nil without new_flow_rate

	idleTimeout time.Duration // as last followed

	live      *balancer.FrontendLive
	stats     *FrontendStats
	unreplied flowList
	flows     int
}

// route returns the pool of now for a client of l, or nil. fr is the front that a flow began with; where the listener belongs
// to another one by now, that one decides.
func (fl *flows) route(l *datagramListener, fr *front, client netip.Addr) *balancer.Pool {
	if !l.closing {
		fr = l.front
	}
	snap := fl.sh.eng.director.Snapshot()
	if f := snap.Frontend(fr.name); f != nil && f.Config.IsUDP() {
		return f.Route(client, nil).Pool
	}
	if p := fr.front.Route(client, nil).Pool; p != nil { // removed: its flows may still move, within the pool of that name
		return snap.Pool(p.Config.Name)
	}
	return nil
}

// target is a backend as this shard sends to it.
type target struct {
	// Set once, never changed.
	fl      *flows
	number  uint32
	backend *balancer.Backend
	stats   *BackendStats
	ip      [16]byte // IPv4 as mapped
	zone    uint32
	port    uint16
	v4      bool
	sa      sockaddr // the same for connect(2)

	// Changed by a reload.
	gone     bool          // no longer in the snapshot
	sources  []uint16      // numbers of the addresses to send from
	announce announcement  // how it is told who clients are
	refusal  time.Duration // what a refusal counts as, where the pool wants to know how long answers take; else 0

	flows     int
	refusedAt int64 // tick at which ICMP last said that nobody is there; 0 never

	// Mode datagram without replies: see sendonly.go.
	direct     int32          // the socket; -1 none
	noTrain    bool           // the path refuses UDP_SEGMENT
	lastCount  uint8          // datagrams of the last call that sent some
	lastFront  *FrontendStats // whose it was
	epoch      uint64         // scratch of one batch
	head, tail uint16
}

func newFlows(sh *shard) *flows {
	fl := &flows{sh: sh, armed: math.MaxInt64, fronts: make([]*front, 1), targets: make([]*target, 1), listeners: make([]*datagramListener, 1),
		byName: map[string]*front{}, byBackend: map[*balancer.Backend]*target{}, bySource: map[netip.Addr]uint16{},
		refusals: map[uint32][]*balancer.Backend{}, credit: creditMax, creditAt: sh.loop.Now(),
		lately: newSentLately(), in: newBatch(inBatch, true), out: newBatch(outBatch, false), slots: make([]slot, 0, inBatch)}
	fl.table.init()
	fl.wheel.flows = &fl.table
	fl.timer.Handle(fl)
	return fl
}

// listen makes the shard take datagrams from exactly the bindings given, by descriptor. A listener that goes lets no new
// flows begin and stays until it is forgotten.
func (fl *flows) listen(wanted map[int]*bound) {
	for _, l := range fl.listeners[1:] {
		if l == nil {
			continue
		}
		b := wanted[l.fd]
		if l.closing = b == nil; !l.closing {
			l.follow(b)
			delete(wanted, l.fd)
		}
	}
	for fd, b := range wanted {
		ip := b.local.IP.Addr()
		l := &datagramListener{fl: fl, fd: fd, binding: b.binding, v4: ip.Is4(), wildcard: ip.IsUnspecified()}
		l.number = place(&fl.listeners, l)
		l.follow(b)
		if err := fl.sh.loop.Listen(fd, l); err != nil {
			fl.sh.eng.complain(complaint{what: "cannot watch a UDP listener: a shard gets none of its datagrams", errno: syscall.ENOMEM})
		}
	}
}

// forget takes the listener with that descriptor, which is closing and has no flow left, off the loop.
func (fl *flows) forget(fd int) {
	for i, l := range fl.listeners {
		if l != nil && l.fd == fd {
			l.countReceiveDrops()
			fl.sh.loop.Forget(fd)
			fl.proxies.forget(l.number)
			fl.listeners[i] = nil
		}
	}
	fl.prune()
}

// close gives back what belongs to no flow. All flows have ended.
func (fl *flows) close() {
	fl.sh.loop.Cancel(&fl.timer)
	for _, l := range fl.listeners {
		if l != nil {
			fl.sh.loop.Forget(l.fd)
		}
	}
	for _, t := range fl.targets {
		if t != nil {
			fl.closeDirect(t)
		}
	}
	for _, s := range fl.sources {
		if s.shared != nil {
			fl.sh.loop.Close(s.shared.fd)
		}
	}
}

// frontOf returns the shard's entry of a frontend, made anew or brought up to date.
func (fl *flows) frontOf(f *balancer.Frontend) *front {
	fr := fl.byName[f.Config.Name]
	if fr == nil {
		fr = &front{name: f.Config.Name}
		fr.number = place(&fl.fronts, fr)
		fl.byName[fr.name] = fr
	}
	if fr.flows == 0 {
		fr.live = f.Live // flows give back where they have taken
	}
	fr.front, fr.config, fr.stats = f, f.Config, fl.sh.frontendStats(f.Config.Name)
	return fr
}

// countReceiveDrops adds what listeners and shared sockets have lost since the last time to the counters.
func (fl *flows) countReceiveDrops() {
	for _, l := range fl.listeners {
		if l != nil {
			l.countReceiveDrops()
		}
	}
	for _, s := range fl.sources {
		if s.shared != nil {
			lost := receiveDrops(s.shared.fd)
			fl.sh.stats.ReplyDrops += uint64(lost - s.shared.lost)
			s.shared.lost = lost
		}
	}
}

// targetOf returns the shard's entry of a backend.
func (fl *flows) targetOf(b *balancer.Backend) *target {
	t := fl.byBackend[b]
	if t == nil {
		a := b.Address.IP
		t = &target{fl: fl, backend: b, stats: fl.sh.backendStats(b), ip: a.Addr().As16(), port: a.Port(), v4: a.Addr().Is4(), direct: -1}
		if zone := a.Addr().Zone(); zone != "" {
			t.zone = zoneIndex(zone)
		}
		t.sa.set(b.Address)
		t.number = place(&fl.targets, t)
		fl.byBackend[b] = t
		fl.refresh(t, fl.sh.eng.director.Snapshot())
	}
	return t
}

// refresh brings what a snapshot says of t up to date.
func (fl *flows) refresh(t *target, snap *balancer.Snapshot) {
	t.gone = isGone(t.backend, snap)
	fl.closeDirect(t) // the next one has the settings of now
	t.sources = t.sources[:0]
	if p := snap.Pool(t.backend.Pool); p != nil {
		t.announce = announcementOf(p.Config)
		t.refusal = 0
		if p.Times() {
			t.refusal = p.Config.ConnectTimeout
		}
		for _, a := range p.Config.Source {
			if a.Is4() == t.v4 {
				t.sources = append(t.sources, fl.sourceOf(a))
			}
		}
	}
	if len(t.sources) == 0 {
		a := netip.IPv6Unspecified()
		if t.v4 {
			a = netip.IPv4Unspecified()
		}
		t.sources = append(t.sources, fl.sourceOf(a))
	}
}

// place puts v into the first free entry after 0 and returns its number.
func place[T any](list *[]*T, v *T) uint32 {
	for i := 1; i < len(*list); i++ {
		if (*list)[i] == nil {
			(*list)[i] = v
			return uint32(i)
		}
	}
	*list = append(*list, v)
	return uint32(len(*list) - 1)
}

// follow makes the shard do as the snapshot says from now on.
func (fl *flows) follow(snap *balancer.Snapshot) {
	fl.wake()
	shorter := false
	for _, fr := range fl.fronts[1:] {
		if fr != nil {
			if f := snap.Frontend(fr.name); f != nil && f.Config.IsUDP() {
				was := fr.idleTimeout
				fr.front, fr.config, fr.idleTimeout = f, f.Config, f.Config.UDP.IdleTimeout
				shorter = shorter || fr.idleTimeout < was
			}
		}
	}
	if shorter {
		fl.each(fl.reschedule)
	}
	cut := false
	for _, t := range fl.targets[1:] {
		if t != nil {
			fl.refresh(t, snap)
			cut = cut || t.gone && t.flows > 0
		}
	}
	if cut {
		fl.cutGone()
	}
	fl.cutDenied()
	fl.prune()
}

// cutGone ends the flows whose backend is gone and whose frontend wants that.
func (fl *flows) cutGone() {
	fl.each(func(f *flow) {
		if fl.targets[f.target].gone && fl.fronts[f.front].config.UDP.OnBackendGone == "cut" {
			fl.end(f, BackendRemoved)
		}
	})
}

// each calls do for every flow; do may end it. It takes some 10 ns a flow.
func (fl *flows) each(do func(*flow)) {
	for _, chunk := range fl.table.chunks {
		for i := range chunk {
			if f := &chunk[i]; f.target != 0 {
				do(f)
			}
		}
	}
}

// prune forgets the fronts and targets that nothing refers to.
func (fl *flows) prune() {
	used := map[uint32]bool{}
	for _, l := range fl.listeners[1:] {
		if l != nil {
			used[l.front.number] = true
		}
	}
	for i, fr := range fl.fronts {
		if fr != nil && fr.flows == 0 && !used[fr.number] {
			fl.fronts[i] = nil
			delete(fl.byName, fr.name)
		}
	}
	for i, t := range fl.targets {
		if t != nil && t.gone && t.flows == 0 {
			fl.closeDirect(t)
			fl.targets[i] = nil
			delete(fl.byBackend, t.backend)
		}
	}
}

// New flows may take half of a shard's time while clients queue, and creditMax at once: a flow costs a socket, ten times
// what a datagram of a live flow costs, and in a flood the live ones shall still be served. While nobody queues there is
// no bound.
const (
	creditMax  = 200e6 // ns
	creditPart = 2     // of the time that passes, one part in so many is for new flows
	creditMin  = -10e6
)

// affords reports whether there is time for a new flow.
func (fl *flows) affords(now int64) bool {
	fl.credit = min(fl.credit+(now-fl.creditAt)/creditPart, creditMax)
	fl.creditAt = now
	return fl.credit > 0 || !fl.queued
}

// spend takes the time that a new flow took.
func (fl *flows) spend(took int64) { fl.credit = max(fl.credit-took, creditMin) }

// makeRoom counts a new flow on its frontend and on the process, ending an unreplied one when all places are taken. It
// returns the flags that giveRoom needs.
func (fl *flows) makeRoom(fr *front) (flags flowFlags, ok bool) {
	e := fl.sh.eng
	if len(fr.config.UDP.SharedSource) == 0 {
		flags = ownSocket
	}
	for try := 0; ; try++ {
		fromAny := false
		if flags == 0 || e.admitSocket() {
			if fr.live.Acquire(fr.config.UDP.MaxFlows) {
				e.flows.Add(1)
				return flags, true
			}
			if flags != 0 {
				e.dismissSocket()
			}
		} else {
			fromAny = true
		}
		// Between evicting and taking the place another shard may be faster; what is evicted after the last try is lost for nothing.
		if try == roomTries || !fl.evict(fr, fromAny) {
			return 0, false
		}
	}
}

// roomTries bounds the flows that end so that one may begin.
const roomTries = 4

func (fl *flows) giveRoom(fr *front, flags flowFlags) {
	if flags&ownSocket != 0 {
		fl.sh.eng.dismissSocket()
	}
	fr.live.Release()
	fl.sh.eng.flows.Add(-1)
}

// evictLooks is the number of flows looked at for one to end: no more have datagrams in one batch.
const evictLooks = inBatch + 1

// evict ends the oldest unreplied flow of fr, or of any front where fr has none and any will do.
func (fl *flows) evict(fr *front, any bool) bool {
	n := fr.unreplied.oldest
	if n == 0 && any {
		for _, other := range fl.fronts[1:] {
			if other != nil && other.unreplied.oldest != 0 {
				n = other.unreplied.oldest
				break
			}
		}
	}
	if n == 0 {
		return false
	}
	for range evictLooks {
		if n == 0 {
			return false
		}
		f := fl.table.at(n)
		if f.epoch != fl.epoch { // else it has datagrams in the batch at hand
			fl.end(f, Evicted)
			return true
		}
		n = f.newer
	}
	return false
}

// timeout returns how long f may be quiet, in ticks.
func (fl *flows) timeout(f *flow) int64 {
	u := &fl.fronts[f.front].config.UDP
	if f.state == replied && !fl.draining {
		return ticks(int64(u.IdleTimeout))
	}
	return ticks(int64(u.UnrepliedTimeout))
}

// left returns how long f may go on being quiet, in ticks.
func (fl *flows) left(f *flow) int64 { return fl.timeout(f) - int64(uint32(fl.now)-f.last) }

// schedule puts f, which is not on it, on the wheel.
func (fl *flows) schedule(f *flow) {
	if due := fl.wheel.add(f, fl.now, max(fl.left(f), 0)); due < fl.armed {
		fl.arm(due)
	}
}

// reschedule is schedule for a flow that is on the wheel and whose timeout may have become shorter.
func (fl *flows) reschedule(f *flow) {
	fl.wheel.remove(f)
	fl.schedule(f)
}

func (fl *flows) arm(due int64) {
	fl.armed = due
	now := fl.sh.loop.Now()
	fl.sh.loop.After(&fl.timer, now, time.Duration(max(due<<tickBits-now, 0)))
}

// wake notes the time of the event at hand.
func (fl *flows) wake() { fl.now = fl.sh.loop.Now() >> tickBits }

// expirySlice is the number of flows looked at before other sockets have their turn: closing one takes 5 us.
const expirySlice = 512

// Expire is called by the loop when the wheel has something due: it ends the flows that are over their time.
func (fl *flows) Expire() {
	fl.wake()
	for range expirySlice {
		f := fl.wheel.pop(fl.now)
		if f == nil {
			fl.armed = math.MaxInt64
			fl.table.shrink()
			if due := fl.wheel.next(); due >= 0 {
				fl.arm(due)
			}
			return
		}
		if left := fl.left(f); left > 0 {
			fl.wheel.add(f, fl.now, left)
		} else {
			fl.end(f, expiredBy[f.state])
		}
	}
	fl.armed = fl.now
	fl.sh.loop.Yield(&fl.timer)
}

// expiredBy is why a flow in each state ends that is over its time.
var expiredBy = [...]Reason{unreplied: Unreplied, replied: IdleTimeout, spent: MaxRequests}

// endAll ends every flow for the same reason.
func (fl *flows) endAll(reason Reason) {
	fl.wake()
	fl.each(func(f *flow) { fl.end(f, reason) })
}

// drain makes quiet flows end soon and lets no new ones in.
func (fl *flows) drain() {
	fl.draining = true
	fl.wake()
	fl.each(fl.reschedule)
}
