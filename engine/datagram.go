package engine

import (
	"syscall"
	"unsafe"

	"awe4lb/balancer"
	"awe4lb/engine/loop"
	"awe4lb/engine/proxyproto"

	"golang.org/x/sys/unix"
)

// datagramListener is a shard's socket of one address of a UDP frontend. Owned by the shard's goroutine.
type datagramListener struct {
	// Set once, never changed.
	fl       *flows
	fd       int
	number   uint32
	binding  *binding
	v4       bool
	wildcard bool // bound to every address: replies say which they come from

	// Changed by a reload.
	front   *front
	gro     bool
	proxied bool // proxies may tell who clients are
	closing bool // no longer configured: its flows may end, new ones do not begin

	lost uint32 // datagrams lost in the receive queue, as last counted
}

// follow makes l serve what b says. A setting of the socket that cannot be had stays as it was.
func (l *datagramListener) follow(b *bound) {
	fl := l.fl
	if l.front != nil {
		l.countReceiveDrops() // those of the one it was
		_ = tuneDatagrams(l.fd, b.local, b.front.Config)
	}
	l.front = fl.frontOf(b.front)
	l.front.rate = b.rate
	// Once on it stays on for the socket: what waits in the queue is joined already, and says so only while it is on.
	l.gro = l.gro || l.front.config.UDP.GRO
	l.proxied = introduces(l.front.config)
	fl.in.resize(l.slotBytes())
}

func (l *datagramListener) countReceiveDrops() {
	lost := receiveDrops(l.fd)
	l.front.stats.Dropped[ToBackend][DropReceiveQueue] += uint64(lost - l.lost)
	l.lost = lost
}

// listenerReads is the number of batches taken from a listener at one event. Taking all there is would starve backends'
// answers and timers: 1,000 round trips a second under overload instead of 27,000 and more (research of 2026-11-22).
const listenerReads = 2

// Ready takes datagrams of clients.
func (l *datagramListener) Ready(int, loop.Events) {
	fl := l.fl
	fl.wake()
	limit := l.slotBytes()
	for range listenerReads {
		n, errno := fl.in.receive(l.fd, inBatch, limit)
		if n == 0 {
			if errno != syscall.EAGAIN && errno != 0 {
				fl.sh.stats.AcceptErrors++
				fl.sh.eng.complain(complaint{what: "cannot receive datagrams", errno: errno})
			}
			return
		}
		fl.queued = n == inBatch
		if l.proxied && l.gro {
			l.takeApart(n)
		} else {
			l.serve(n)
		}
		if n < inBatch {
			return
		}
	}
}

// serve gives each of n datagrams to its flow or its backend.
func (l *datagramListener) serve(n int) {
	if u := &l.front.config.UDP; u.Mode == "datagram" && !u.Replies && !u.Transparent {
		l.passOn(n)
	} else {
		l.take(n)
	}
}

// slotBytes returns the room that each datagram needs.
func (l *datagramListener) slotBytes() int {
	size := int(l.front.config.UDP.BufferSize)
	switch {
	case l.gro:
		return maxDatagram
	case l.proxied: // buffer_size is of what follows the header
		return min(size+proxyproto.MaxSize, maxDatagram)
	}
	return size
}

// maxDatagram is more than any UDP datagram has, and what UDP_GRO may fill.
const maxDatagram = 1 << 16

// take gives each of n datagrams to its flow, and sends flow by flow: what belongs together can leave together.
func (l *datagramListener) take(n int) {
	fl := l.fl
	fl.epoch++
	fl.order = fl.order[:0]
	perDatagram := l.front.config.UDP.Mode == "datagram"
	maxRequests := uint32(l.front.config.UDP.MaxRequests)
	var key flowKey
	for i := range n {
		count, ok := l.check(i, &key)
		if !ok {
			continue
		}
		var to *balancer.Backend
		if perDatagram {
			var why unpicked
			if to, why = l.pick(&key); to != nil {
				key.target = fl.targetOf(to).number
			} else if !l.anyTarget(&key) {
				l.turnAway(why, count)
				continue
			}
		}
		hash := fl.table.hash(&key)
		var f *flow
		if number := fl.table.find(&key, hash); number != 0 {
			f = fl.table.at(number)
			if to != nil {
				to.Release() // the flow holds a count of its own
			}
		} else {
			var reason DropReason
			if f, reason = fl.open(l, &key, hash, to); f == nil {
				fl.drop(l.front.stats, ToBackend, reason, count)
				continue
			}
		}
		if f.epoch != fl.epoch {
			f.epoch, f.head = fl.epoch, uint16(i)
			fl.order = append(fl.order, f.number)
		} else {
			fl.next[f.tail] = uint16(i)
		}
		f.tail = uint16(i)
		if f.asked += uint32(count); maxRequests > 0 && f.asked >= maxRequests {
			fl.spendFlow(f)
		}
	}
	for i, number := range fl.order {
		f := fl.table.at(number)
		fl.chains[i] = slotChain{f.head, f.tail}
	}
	for i, number := range fl.order {
		f := fl.table.at(number)
		slots := fl.chain(fl.chains[i].head, fl.chains[i].tail)
		if f.epoch != fl.epoch { // ended meanwhile: an error on a shared socket was about it
			fl.dropSlots(l.front.stats, ToBackend, DropRefused, fl.in, slots)
			continue
		}
		fl.forward(f, slots)
	}
}

// slotChain is the first and the last slot of a batch that one flow has.
type slotChain struct{ head, tail uint16 }

// chain returns the slots from head to tail, in order.
func (fl *flows) chain(head, tail uint16) []slot {
	fl.slots = fl.slots[:0]
	for i := head; ; i = fl.next[i] {
		fl.slots = append(fl.slots, slot{i, fl.segment[i]})
		if i == tail {
			return fl.slots
		}
	}
}

// check reads what slot i says of its sender into key. It returns the number of datagrams in the slot, and false when
// they are not to be relayed.
func (l *datagramListener) check(i int, key *flowKey) (count uint64, ok bool) {
	fl := l.fl
	b := fl.in
	var beside ancillary
	if l.wildcard || l.gro {
		beside = b.beside(i)
	}
	*key = flowKey{local: beside.local, listener: l.number}
	switch from := &b.from[i]; from.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		key.client = mapped(in.Addr)
		key.port = port((*[2]byte)(unsafe.Pointer(&in.Port)))
	default:
		key.client, key.zone = from.Addr, from.Scope_id
		key.port = port((*[2]byte)(unsafe.Pointer(&from.Port)))
	}
	fl.segment[i] = 0
	count = 1
	if l.proxied && key.port != 0 {
		if reason := l.introduce(i, key); reason != kept {
			fl.drop(l.front.stats, ToBackend, reason, count)
			return count, false
		}
	}
	largest := int(b.hdrs[i].Len)
	if beside.segment > 0 && largest > beside.segment {
		fl.segment[i] = uint16(beside.segment)
		count = uint64((largest + beside.segment - 1) / beside.segment)
		largest = beside.segment
	}
	switch {
	case b.cut(i) || largest > int(l.front.config.UDP.BufferSize):
		fl.drop(l.front.stats, ToBackend, DropTruncated, count)
		return count, false
	case key.port == 0 && key.via == 0: // nobody can be answered there, and the kernel sends nothing to it
		fl.drop(l.front.stats, ToBackend, DropUnreachable, count)
		return count, false
	}
	return count, true
}

// unpicked is why there is no backend for a datagram.
type unpicked struct {
	reason DropReason
	pool   *balancer.Pool // that was asked; nil: none was
	lack   balancer.Lack  // of that pool
}

// pick picks a backend for a datagram and counts it there; the caller gives that back. Where there is none it says why.
func (l *datagramListener) pick(key *flowKey) (*balancer.Backend, unpicked) {
	fl := l.fl
	if l.closing {
		return nil, unpicked{reason: DropDraining}
	}
	client := key.clientIP()
	pool := fl.route(l, l.front, client)
	if pool == nil {
		return nil, unpicked{reason: DropNoRoute}
	}
	b, lack := pool.PickOrWhy(client, key.poolKey(pool), nil)
	if b == nil {
		return nil, unpicked{dropOf(lack), pool, lack}
	}
	return b, unpicked{reason: kept}
}

// turnAway drops what a slot has, for which there is no backend.
func (l *datagramListener) turnAway(why unpicked, count uint64) {
	if why.pool != nil {
		l.fl.sh.poolStats(why.pool).turnAway(why.lack)
	}
	l.fl.drop(l.front.stats, ToBackend, why.reason, count)
}

// anyTarget makes key that of a flow the client has already, to any backend: one at its max_connections is not to be picked, but
// what its flows send is within the limit.
func (l *datagramListener) anyTarget(key *flowKey) bool {
	fl := l.fl
	pool := fl.route(l, l.front, key.clientIP())
	if pool == nil || l.closing {
		return false
	}
	for _, m := range pool.Members {
		if t := fl.byBackend[m.Backend]; t != nil {
			key.target = t.number
			if fl.table.find(key, fl.table.hash(key)) != 0 {
				return true
			}
		}
	}
	key.target = 0
	return false
}

// maxFaults bounds the errors that one forward fetches on a flow's own socket: one that comes back again and again is that of the
// datagram at hand. On a shared socket they may be those of other flows.
const (
	maxFaults       = 3
	maxSharedFaults = 32
)

// forward sends datagrams of f's client to its backend.
func (fl *flows) forward(f *flow, slots []slot) {
	front := fl.fronts[f.front]
	l := fl.listeners[f.key.listener]
	if fl.targets[f.target].gone && front.config.UDP.OnBackendGone != "keep" && fl.route(l, front, f.key.clientIP()) != nil {
		if drop := fl.move(f, nil, BackendRemoved); drop != kept {
			fl.dropSlots(front.stats, ToBackend, drop, fl.in, slots)
			return
		}
	}
	f.last = uint32(fl.now)
	slots = fl.withinCaps(f, ToBackend, fl.in, slots)
	for tries := 0; ; tries++ {
		var done sent
		var errno syscall.Errno
		fd := fl.toBackend(f)
		t := fl.targets[f.target]
		d := destination{fd: fd, direction: ToBackend, st: front.stats, recall: f.number, v4: t.v4}
		// A backend that has not answered may not be there, and what it refuses can be saved only one by one.
		d.train = front.config.UDP.GSO && f.flags&noTrainUp == 0 && f.answered > 0
		hoped := d.train
		if f.intro == 0 {
			slots, done, errno = fl.send(&d, fl.in, slots)
		} else {
			slots, done, errno = fl.sendIntroduced(f, &d, slots)
		}
		if hoped && !d.train {
			f.flags |= noTrainUp
		}
		if done.datagrams > 0 {
			f.lastCount = done.last
		}
		fl.count(f, t, ToBackend, done)
		if errno == 0 {
			return
		}
		if tries == maxFaults && f.fd >= 0 || tries == maxSharedFaults {
			fl.dropSlots(front.stats, ToBackend, DropUnreachable, fl.in, slots)
			return
		}
		// An error of an earlier datagram, which this call has fetched instead of sending.
		key := f.key
		if !fl.failed(f, errno) {
			if f, _ = fl.again(l, front, key); f == nil {
				fl.dropSlots(front.stats, ToBackend, DropRefused, fl.in, slots)
				return
			}
			front = fl.fronts[f.front]
		}
	}
}

// count adds what was sent to the counters.
func (fl *flows) count(f *flow, t *target, direction int, done sent) {
	front := fl.fronts[f.front].stats
	f.datagrams[direction] += done.datagrams
	f.bytes[direction] += done.bytes
	front.Datagrams[direction] += done.datagrams
	front.Bytes[direction] += done.bytes
	t.stats.Datagrams[direction] += done.datagrams
	t.stats.Bytes[direction] += done.bytes
}

func (fl *flows) drop(st *FrontendStats, direction int, reason DropReason, datagrams uint64) {
	st.Dropped[direction][reason] += datagrams
}

func (fl *flows) dropSlots(st *FrontendStats, direction int, reason DropReason, b *batch, slots []slot) {
	for _, s := range slots {
		n, _ := s.shape(b)
		fl.drop(st, direction, reason, uint64(n))
	}
}
