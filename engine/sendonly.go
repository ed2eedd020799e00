package engine

import (
	"net/netip"
	"syscall"

	"awe4lb/balancer"
	"awe4lb/engine/loop"

	"golang.org/x/sys/unix"
)

// Mode datagram without replies: each datagram is picked a backend for and sent on the shard's socket to that backend.
// There are no flows, nothing to remember, and nothing to come back; what backends answer the kernel throws away.

// passOn sends each of n datagrams to a backend, those for one backend together.
func (l *datagramListener) passOn(n int) {
	fl := l.fl
	fl.epoch++
	fl.order = fl.order[:0]
	var key flowKey
	g := guardOf(l.front.front)
	for i := range n {
		count, ok := l.check(i, &key)
		if !ok {
			continue
		}
		if !g.allows(key.clientIP()) {
			fl.drop(l.front.stats, ToBackend, DropDenied, count)
			continue
		}
		b, why := l.pick(&key)
		if b == nil {
			l.turnAway(why, count)
			continue
		}
		t := fl.targetOf(b)
		b.Release() // the datagram is as good as sent
		if c := g.capsOf(); c != nil && !l.within(c, &key, i) {
			fl.drop(l.front.stats, ToBackend, DropBandwidth, count)
			continue
		}
		if t.announce.on { // one by one: headers differ
			s, header := fl.joinDirect(i, &key, t)
			if _, size := s.shape(fl.joined); !fits(t.v4, size) {
				fl.drop(l.front.stats, ToBackend, DropTooBig, count)
				continue
			}
			l.sendTo(t, fl.joined, append(fl.joins[:0], s), header)
			continue
		}
		if t.epoch != fl.epoch {
			t.epoch, t.head = fl.epoch, uint16(i)
			fl.order = append(fl.order, t.number)
		} else {
			fl.next[t.tail] = uint16(i)
		}
		t.tail = uint16(i)
	}
	for _, number := range fl.order {
		t := fl.targets[number]
		l.sendTo(t, fl.in, fl.chain(t.head, t.tail), 0)
	}
}

// sendTo sends the datagrams in those slots of b, each with a header of so many bytes, to t. Those that it refuses go to
// another backend, as long as there is one.
func (l *datagramListener) sendTo(t *target, b *batch, slots []slot, header int) {
	fl := l.fl
	st := l.front.stats
	retried := false
	for t != nil {
		if reason := fl.openDirect(t); reason != kept {
			fl.dropSlots(st, ToBackend, reason, b, slots)
			return
		}
		fl.o.connected()
		d := destination{fd: int(t.direct), direction: ToBackend, st: st, train: l.front.config.UDP.GSO && !t.noTrain, recall: t.recall(), v4: t.v4}
		hoped := d.train
		rest, done, errno := fl.send(&d, b, slots)
		done.bytes -= done.datagrams * uint64(header)
		t.noTrain = t.noTrain || hoped && !d.train
		t.countDirect(st, done)
		if errno == 0 {
			return
		}
		slots = rest // not sent: the call told of an earlier one
		t.refusedAt = fl.now
		if t.fetchErrors() == 0 {
			t.noteRefused(errno, 1)
			fl.dropDirect(t, DropRefused, max(uint64(t.lastCount), 1))
		}
		next := fl.another(t)
		if next == nil && !retried { // the error was of an earlier one: maybe somebody is there by now
			next, retried = t, true
		}
		t = next
	}
	fl.dropSlots(st, ToBackend, DropRefused, b, slots)
}

func (t *target) countDirect(st *FrontendStats, done sent) {
	if done.datagrams == 0 {
		return
	}
	t.lastCount, t.lastFront = done.last, st
	st.Datagrams[ToBackend] += done.datagrams
	st.Bytes[ToBackend] += done.bytes
	t.stats.Datagrams[ToBackend] += done.datagrams
	t.stats.Bytes[ToBackend] += done.bytes
}

// openDirect opens the shard's socket to t if it is not open.
func (fl *flows) openDirect(t *target) DropReason {
	if t.direct >= 0 {
		return kept
	}
	fd, errno := sysSocket(t.sa.family(), unix.SOCK_DGRAM)
	if errno != 0 {
		fl.sh.eng.complain(complaint{what: "cannot open a socket for datagrams", errno: errno})
		return DropNoResources
	}
	askErrors(fd, t.v4)
	// A filter that takes nothing: answers nobody reads must not fill the queue, which errors share.
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	if a := fl.sources[t.sources[0]].address; !a.IsUnspecified() {
		errno = fl.bindAddress(fd, a)
	}
	if errno == 0 {
		errno = sysConnect(fd, &t.sa)
	}
	if errno == 0 {
		if err := fl.sh.loop.RegisterRead(fd, t); err != nil {
			errno = syscall.ENOMEM
		}
	}
	if errno != 0 {
		_ = syscall.Close(fd)
		t.stats.ConnectErrors[ConnectFailed]++
		return DropUnreachable
	}
	t.direct = int32(fd)
	return kept
}

func (fl *flows) closeDirect(t *target) {
	if t.direct >= 0 {
		fl.sh.loop.Close(int(t.direct))
		t.direct = -1
	}
}

// Ready is called by the loop for the socket to t: there may be errors. Answers are not read.
func (t *target) Ready(_ int, ev loop.Events) {
	if ev.Failed() && t.direct >= 0 {
		t.fl.wake()
		t.fetchErrors()
	}
}

// fetchErrors takes what ICMP says of datagrams to t, and sends those that came back whole to another backend. It returns how
// much it found.
func (t *target) fetchErrors() (found int) {
	fl := t.fl
	for range maxQuotes {
		e, ok := fl.errors.read(int(t.direct))
		if !ok {
			break
		}
		found++
		if !mayBePending(e.errno) {
			fl.dropDirect(t, dropReason(e.errno), 1)
			continue
		}
		t.noteRefused(e.errno, 1)
		if !fl.lately.has(t.recall(), e.payload) {
			fl.dropDirect(t, DropRefused, max(uint64(t.lastCount), 1))
			continue
		}
		next := fl.another(t)
		if next == nil || fl.openDirect(next) != kept {
			fl.dropDirect(t, DropRefused, 1)
			continue
		}
		fl.sh.stats.FlowRetries++
		fl.o.connected()
		if errno := fl.o.one(int(next.direct), e.payload); errno != 0 {
			fl.dropDirect(t, DropRefused, 1)
			continue
		}
		fl.lately.note(next.recall(), e.payload, next.v4)
		next.countDirect(t.lastFront, sent{1, uint64(len(e.payload) - t.headerLen(e.payload)), 1})
	}
	return found
}

func (fl *flows) dropDirect(t *target, reason DropReason, datagrams uint64) {
	if t.lastFront != nil {
		fl.drop(t.lastFront, ToBackend, reason, datagrams)
	}
}

// recall is the number under which t's datagrams are noted in flows.lately: flows have numbers of their own.
func (t *target) recall() uint32 { return ^t.number }

// noteRefused counts errors that say that t is not there.
func (t *target) noteRefused(errno syscall.Errno, n uint64) {
	t.stats.ConnectErrors[connectReason(errno)] += n
	t.refusedAt = t.fl.now
	if t.refusal > 0 {
		t.backend.Answered(t.refusal) // a quick refusal is no merit
	}
}

// refusedLately is how long, in ticks, a backend that has refused a datagram is not offered one that another has refused:
// with nobody there, a datagram must not go round and round.
const refusedLately = 1e9 >> tickBits

// refusedOf returns the backends of a pool that have refused lately.
func (fl *flows) refusedOf(pool *balancer.Pool) []*balancer.Backend {
	var tried []*balancer.Backend
	for _, m := range pool.Members {
		if t := fl.byBackend[m.Backend]; t != nil && t.refusedAt > 0 && fl.now-t.refusedAt < refusedLately {
			tried = append(tried, m.Backend)
		}
	}
	return tried
}

// another returns a target of t's pool that has not refused lately, or nil.
func (fl *flows) another(t *target) *target {
	pool := fl.sh.eng.director.Snapshot().Pool(t.backend.Pool)
	if pool == nil {
		return nil
	}
	b := pool.Pick(0, fl.refusedOf(pool))
	if b == nil {
		return nil
	}
	b.Release()
	return fl.targetOf(b)
}

// bindAddress binds fd to an address and leaves the port to connect(2).
func (fl *flows) bindAddress(fd int, a netip.Addr) syscall.Errno {
	fl.sh.target.setIP(netip.AddrPortFrom(a, 0))
	return sysBind(fd, &fl.sh.target)
}
