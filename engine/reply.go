package engine

import (
	"syscall"

	"awe4lb/engine/loop"
)

// replyBudget is the number of datagrams taken from one flow's socket before other sockets have their turn.
const replyBudget = 64

// Ready is called by the loop for the socket of a flow: the backend has answered, or ICMP says that it will not.
func (fl *flows) Ready(fd int, ev loop.Events) {
	f := fl.ownerOf(fd)
	if f == nil {
		return // a stale event
	}
	fl.wake()
	limit := fl.replyBytes(f)
	var pending syscall.Errno
	for taken := 0; ; {
		n, errno := fl.out.receive(fd, outBatch, limit)
		if errno != 0 {
			if errno == syscall.EAGAIN || pending != 0 {
				break
			}
			pending = errno // told before the data that is there; there may be some
			continue
		}
		fl.slots = fl.slots[:0]
		for i := range n {
			fl.slots = append(fl.slots, slot{i: uint16(i)})
		}
		if n == 0 || !fl.answer(f, fl.out, fl.slots) {
			return
		}
		// A short count means drained, unless an error cut it short.
		if n < outBatch && !ev.Failed() && pending == 0 {
			return
		}
		if taken += n; taken >= replyBudget {
			fl.sh.loop.RearmRead(fd)
			return
		}
	}
	if pending != 0 || ev.Failed() {
		fl.failed(f, pending)
	}
}

// ownerOf returns the flow that a descriptor belongs to, or nil.
func (fl *flows) ownerOf(fd int) *flow {
	if fd < len(fl.owner) && fl.owner[fd] != 0 {
		return fl.table.at(fl.owner[fd])
	}
	return nil
}

// own enters f as the owner of its descriptor.
func (fl *flows) own(f *flow) {
	for int(f.fd) >= len(fl.owner) {
		fl.owner = append(fl.owner, 0)
	}
	fl.owner[f.fd] = f.number
}

// replyBytes returns the room that each answer to f needs.
func (fl *flows) replyBytes(f *flow) int {
	u := &fl.fronts[f.front].config.UDP
	size := int(u.BufferSize)
	if f.flags&hasGRO != 0 {
		size = maxDatagram
	}
	if size > fl.out.size {
		fl.out.resize(size) // a reload has made it larger
	}
	return size
}

// answer sends the datagrams of f's backend in those slots to the client. It reports false when f has ended.
func (fl *flows) answer(f *flow, b *batch, slots []slot) bool {
	front := fl.fronts[f.front]
	u := &front.config.UDP
	good := slots[:0]
	over := false
	for _, s := range slots {
		if f.flags&hasGRO != 0 && f.fd >= 0 {
			s.segment = uint16(b.beside(int(s.i)).segment)
		}
		count, size := s.shape(b)
		switch {
		case b.cut(int(s.i)) || size > int(u.BufferSize):
			fl.drop(front.stats, ToClient, DropTruncated, uint64(count))
			continue
		case !u.Replies || over:
			fl.drop(front.stats, ToClient, DropUnwanted, uint64(count))
			continue
		}
		good = append(good, s)
		f.answered += uint32(count)
		over = u.MaxResponses > 0 && f.answered >= uint32(u.MaxResponses)
	}
	f.last = uint32(fl.now)
	if f.flags&waits != 0 {
		fl.markReplied(f)
	}
	good = fl.withinCaps(f, ToClient, b, good)
	if len(good) > 0 {
		fl.toClient(f)
		d := destination{fd: fl.listeners[f.key.listener].fd, direction: ToClient, st: front.stats, train: u.GSO && f.flags&noTrainDown == 0}
		hoped := d.train
		_, done, _ := fl.send(&d, b, good)
		if hoped && !d.train {
			f.flags |= noTrainDown
		}
		fl.count(f, fl.targets[f.target], ToClient, done)
	}
	if over {
		fl.end(f, MaxResponses)
		return false
	}
	return true
}

// toClient makes the next datagrams go to f's client, or the proxy that told of it, from the address that it used.
func (fl *flows) toClient(f *flow) {
	l := fl.listeners[f.key.listener]
	key := &f.key
	if key.via != 0 {
		key = &fl.proxies.at(key.via).key
	}
	fl.o.to(&key.client, key.port, key.zone, l.v4)
	if l.wildcard {
		fl.o.from(&key.local, key.zone, l.v4)
	}
}
