package loop

import (
	"math"
	"math/bits"
)

// Expirer is told on the loop that its timer has fired. It may set any timer again, its own too.
type Expirer interface{ Expire() }

// Timer is a deadline, meant to be embedded in what it times: setting one allocates nothing. Give it a handler with
// Handle before the first use. A Timer belongs to one loop.
type Timer struct {
	next, prev *Timer // the slot's list; nil when not set
	when       int64
	h          Expirer
}

// Handle sets who is told when t fires.
func (t *Timer) Handle(h Expirer) { t.h = h }

// Pending reports whether t is set and has not fired.
func (t *Timer) Pending() bool { return t.next != nil }

func (t *Timer) unlink() {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
}

func (t *Timer) linkBefore(head *Timer) {
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
}

// wheel holds the timers in two rings of slots. One set for less than the fine ring's span goes there, any other into
// the coarse ring, where it stays until it fires: long timeouts may be late by a second, and in return thousands of
// idle sessions wake the process at most once a second.
//
//	fine    256 slots of 16.8 ms = 4.3 s
//	coarse  512 slots of 1.07 s  = 9 min; later timers share slots with nearer ones and are passed over until their turn
//
// Time is an argument everywhere, so that tests need no clock.
type wheel struct {
	fine, coarse ring
}

func (w *wheel) init() {
	w.fine.init(24, 256)
	w.coarse.init(30, 512)
}

// add sets t, which must not be set, for d nanoseconds after now. It returns the time at which the wheel wants to be
// advanced for it.
func (w *wheel) add(t *Timer, now, d int64) int64 {
	if d < w.fine.span() {
		return w.fine.add(t, now+d)
	}
	return w.coarse.add(t, now+d)
}

// remove takes t off if it is set.
func (w *wheel) remove(t *Timer) {
	if t.next != nil {
		t.unlink()
	}
}

// next returns the earliest time at which advance may have something to do, math.MaxInt64 when no timer is set. It is
// exact right after advance; later it may name a time that has passed.
func (w *wheel) next() int64 { return min(w.fine.next(), w.coarse.next()) }

// advance fires what is due at now.
func (w *wheel) advance(now int64) {
	w.fine.advance(now)
	w.coarse.advance(now)
}

// ring is a circle of slots, each the head of a list of timers.
type ring struct {
	slots []Timer
	used  []uint64 // a bit for each slot that may hold timers
	bits  uint     // a slot spans 1<<bits nanoseconds
	tick  int64    // the slot of this tick, and every one before, has been emptied
	due   Timer    // head of the list of those that fire now
}

func (r *ring) init(bits uint, slots int) {
	r.bits, r.slots, r.used = bits, make([]Timer, slots), make([]uint64, slots/64)
	for i := range r.slots {
		r.slots[i].next, r.slots[i].prev = &r.slots[i], &r.slots[i]
	}
	r.due.next, r.due.prev = &r.due, &r.due
}

func (r *ring) span() int64 { return int64(len(r.slots)-1) << r.bits }

// dueTick is the tick at which a timer for when may fire: the first that begins no earlier.
func (r *ring) dueTick(when int64) int64 { return (when + 1<<r.bits - 1) >> r.bits }

func (r *ring) add(t *Timer, when int64) int64 {
	tick := max(r.dueTick(when), r.tick+1)
	t.when = when
	slot := int(tick) & (len(r.slots) - 1)
	t.linkBefore(&r.slots[slot])
	r.used[slot/64] |= 1 << (slot % 64)
	return tick << r.bits
}

func (r *ring) next() int64 {
	n := len(r.slots)
	for i := 1; i <= n; {
		slot := int(r.tick+int64(i)) & (n - 1)
		word := r.used[slot/64] >> (slot % 64)
		if word == 0 {
			i += 64 - slot%64 // to the next word
			continue
		}
		skip := bits.TrailingZeros64(word)
		if i += skip; i > n {
			break
		}
		slot += skip
		if head := &r.slots[slot]; head.next != head {
			return (r.tick + int64(i)) << r.bits
		}
		r.used[slot/64] &^= 1 << (slot % 64) // its timers were cancelled
		i++
	}
	return math.MaxInt64
}

func (r *ring) advance(now int64) {
	tick := now >> r.bits
	if tick <= r.tick {
		return
	}
	first := max(r.tick+1, tick-int64(len(r.slots))+1)
	for i := first; i <= tick; i++ {
		slot := int(i) & (len(r.slots) - 1)
		if r.used[slot/64]&(1<<(slot%64)) == 0 {
			continue
		}
		head := &r.slots[slot]
		for t := head.next; t != head; {
			next := t.next
			if r.dueTick(t.when) <= tick {
				t.unlink()
				t.linkBefore(&r.due)
			}
			t = next
		}
		if head.next == head {
			r.used[slot/64] &^= 1 << (slot % 64)
		}
	}
	// From here on handlers may set and cancel timers: r is consistent, and due is an ordinary list.
	r.tick = tick
	for t := r.due.next; t != &r.due; t = r.due.next {
		t.unlink()
		t.h.Expire()
	}
}
