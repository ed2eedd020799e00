package engine

// flowWheel remembers when to look at each flow. A datagram only stores its time in the flow (5 ns); whether a flow is
// over its time is found out when the wheel comes to it, and if not, it is set again for what is left. The links are
// numbers in the flows themselves: a million of them cost the collector nothing. Owned by the shard's goroutine.
//
//	fine    256 slots of 64 ticks = 67 ms, for delays under 17 s: at most 67 ms late
//	coarse  512 slots of 1024 ticks = 1.07 s: at most 1.07 s late, so that many quiet flows wake the process once a second
//
// A delay beyond the coarse ring's 9 minutes is looked at when the ring has gone round, and set again. Time is an argument
// everywhere, in ticks since the loop began, so that tests need no clock.
type flowWheel struct {
	flows  *flowTable
	heads  [fineSlots + coarseSlots]uint32 // first flow of each slot
	fine   int64                           // every slot up to this one has been emptied
	coarse int64
	set    int // flows on the wheel
}

const (
	tickBits = 20 // a tick is 1<<20 ns, 1.05 ms

	fineBits, fineSlots     = 6, 256
	coarseBits, coarseSlots = 10, 512
)

// ticks returns a duration in ticks, rounded up.
func ticks(nanoseconds int64) int64 { return (nanoseconds + 1<<tickBits - 1) >> tickBits }

// add sets f, which must not be set, for delay ticks after now. It returns the tick at which pop will give it.
func (w *flowWheel) add(f *flow, now, delay int64) int64 {
	if w.set == 0 {
		w.fine, w.coarse = now>>fineBits, now>>coarseBits
	}
	w.set++
	if delay < (fineSlots-1)<<fineBits {
		slot := max((now+delay+1<<fineBits-1)>>fineBits, w.fine+1)
		slot = min(slot, w.fine+fineSlots) // fine lags while only coarse slots are in use; beyond it pop would come too early, again and again
		w.link(f, slot&(fineSlots-1))
		return slot << fineBits
	}
	slot := max((now+delay+1<<coarseBits-1)>>coarseBits, w.coarse+1)
	slot = min(slot, w.coarse+coarseSlots)
	w.link(f, fineSlots+slot&(coarseSlots-1))
	return slot << coarseBits
}

func (w *flowWheel) link(f *flow, slot int64) {
	head := &w.heads[slot]
	f.slot, f.prev, f.next = uint16(slot+1), 0, *head
	if *head != 0 {
		w.flows.at(*head).prev = f.number
	}
	*head = f.number
}

// remove takes f off if it is set.
func (w *flowWheel) remove(f *flow) {
	if f.slot == 0 {
		return
	}
	if f.prev != 0 {
		w.flows.at(f.prev).next = f.next
	} else {
		w.heads[f.slot-1] = f.next
	}
	if f.next != 0 {
		w.flows.at(f.next).prev = f.prev
	}
	f.slot, f.prev, f.next = 0, 0, 0
	w.set--
}

// pop takes off and returns a flow whose time has come at now, or nil when there is none left.
func (w *flowWheel) pop(now int64) *flow {
	if f := w.popRing(&w.fine, now>>fineBits, 0, fineSlots); f != nil {
		return f
	}
	return w.popRing(&w.coarse, now>>coarseBits, fineSlots, coarseSlots)
}

// popRing looks at the slots of the ring at base after done, up to the one of now.
func (w *flowWheel) popRing(done *int64, now int64, base, slots int64) *flow {
	if now-*done > slots {
		*done = now - slots // once round is all there is
	}
	for *done < now {
		if n := w.heads[base+(*done+1)&(slots-1)]; n != 0 {
			f := w.flows.at(n)
			w.remove(f)
			return f
		}
		*done++
	}
	return nil
}

// next returns the first tick at which pop has something to give, or -1 when no flow is set.
func (w *flowWheel) next() int64 {
	due := int64(-1)
	for i := int64(1); i <= fineSlots; i++ {
		if w.heads[(w.fine+i)&(fineSlots-1)] != 0 {
			due = (w.fine + i) << fineBits
			break
		}
	}
	for i := int64(1); i <= coarseSlots; i++ {
		if w.heads[fineSlots+(w.coarse+i)&(coarseSlots-1)] != 0 {
			if c := (w.coarse + i) << coarseBits; due < 0 || c < due {
				due = c
			}
			break
		}
	}
	return due
}
