package engine

import (
	"syscall"
	"unsafe"
)

// slot names a slot of a batch that is to be sent: one datagram, or with segment > 0 several of that many bytes, the last
// maybe shorter.
type slot struct{ i, segment uint16 }

// shape returns the number of datagrams in s and the bytes that each has, but maybe the last.
func (s slot) shape(b *batch) (datagrams, bytes int) {
	n := int(b.hdrs[s.i].Len)
	if s.segment == 0 {
		return 1, n
	}
	return (n + int(s.segment) - 1) / int(s.segment), int(s.segment)
}

// sent is what a send has done.
type sent struct {
	datagrams, bytes uint64
	last             uint8 // datagrams of the last call that sent some
}

func (s *sent) add(datagrams, bytes int) {
	s.datagrams += uint64(datagrams)
	s.bytes += uint64(bytes)
	s.last = uint8(datagrams)
}

// destination is where send sends to.
type destination struct {
	fd        int
	direction int
	st        *FrontendStats
	train     bool   // equal datagrams may leave together; send sets it to false when the kernel or the path refuses that
	recall    uint32 // number under which single datagrams are noted in flows.lately; 0 not at all
	v4        bool   // the backend's family, for recall
}

// send sends slots of b to d, where fl.o says, in order. Datagrams of one size that follow each other leave by one call while
// d.train holds. What cannot be sent is dropped and counted. Towards a backend a call may return the error of an earlier
// datagram and send nothing: send stops with that error and the slots that are left.
func (fl *flows) send(d *destination, b *batch, slots []slot) (rest []slot, done sent, errno syscall.Errno) {
	for len(slots) > 0 {
		n, datagrams, segment, bytes := 1, 1, 0, 0
		if d.train {
			n, datagrams, segment, bytes = fl.couple(b, slots)
		} else {
			datagrams, segment = slots[0].shape(b)
			bytes = int(b.hdrs[slots[0].i].Len)
		}
		switch {
		case datagrams == 1:
			errno = fl.o.one(d.fd, b.data(int(slots[0].i)))
			if errno == syscall.EMSGSIZE && d.direction == ToBackend { // maybe what ICMP said of an earlier one
				errno = fl.o.one(d.fd, b.data(int(slots[0].i)))
			}
			if errno == 0 && d.recall != 0 {
				fl.lately.note(d.recall, b.data(int(slots[0].i)), d.v4)
			}
		case d.train:
			errno = fl.o.train(d.fd, n, segment)
			if errno == syscall.EMSGSIZE && d.direction == ToBackend {
				errno = fl.o.train(d.fd, n, segment)
			}
			if refusesTrains(errno) {
				d.train = false
				continue
			}
		default:
			errno = fl.cutUp(d, b.data(int(slots[0].i)), segment, &done)
			if errno == 0 {
				slots = slots[1:]
				continue
			}
		}
		switch {
		case errno == 0:
			done.add(datagrams, bytes)
		case d.direction == ToBackend && mayBePending(errno):
			return slots, done, errno
		default:
			fl.drop(d.st, d.direction, dropReason(errno), uint64(datagrams))
		}
		slots = slots[n:]
	}
	return nil, done, 0
}

// couple makes a train of the first slots: as many as have one size, a shorter one at the end. It returns the number of
// slots and of datagrams, their size and all their bytes, and leaves the slots in fl.o.iovs.
func (fl *flows) couple(b *batch, slots []slot) (n, datagrams, segment, bytes int) {
	for _, s := range slots {
		count, size := s.shape(b)
		length := int(b.hdrs[s.i].Len)
		switch {
		case n == 0:
			segment = size
		case size == segment || count == 1 && length < segment && length > 0:
			if datagrams+count > maxSegments || bytes+length > maxTrain {
				return n, datagrams, segment, bytes
			}
		default:
			return n, datagrams, segment, bytes
		}
		fl.o.iovs[n].Base = unsafe.SliceData(b.data(int(s.i)))
		fl.o.iovs[n].SetLen(length)
		n, datagrams, bytes = n+1, datagrams+count, bytes+length
		if segment == 0 || length < count*segment {
			break // what follows a short one would be taken for a part of it
		}
	}
	return n, datagrams, segment, bytes
}

// cutUp sends the datagrams that share a slot one by one. It stops at an error of an earlier datagram before any of them
// was sent, and drops the rest at a later one: what was sent must not be sent again.
func (fl *flows) cutUp(d *destination, data []byte, segment int, done *sent) syscall.Errno {
	for first := true; len(data) > 0; first = false {
		one := data[:min(segment, len(data))]
		switch errno := fl.o.one(d.fd, one); {
		case errno == 0:
			done.add(1, len(one))
			if d.recall != 0 {
				fl.lately.note(d.recall, one, d.v4)
			}
		case first && d.direction == ToBackend && mayBePending(errno):
			return errno
		default:
			fl.drop(d.st, d.direction, dropReason(errno), 1)
		}
		data = data[len(one):]
	}
	return 0
}

// mayBePending reports whether an error may be that of an earlier datagram: what ICMP says of a backend.
func mayBePending(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.EPROTO,
		syscall.ENOPROTOOPT, syscall.EACCES:
		return true
	}
	return false
}

// refusesTrains reports whether an error says that datagrams cannot leave together: no checksums by the card, a segment
// larger than the path's MTU, an old kernel.
func refusesTrains(errno syscall.Errno) bool {
	switch errno {
	case syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE, syscall.EOPNOTSUPP:
		return true
	}
	return false
}

// dropReason returns why a datagram is lost that could not be sent.
func dropReason(errno syscall.Errno) DropReason {
	switch errno {
	case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
		return DropSendQueue
	case syscall.EMSGSIZE:
		return DropTooBig
	}
	return DropUnreachable
}
