package backend

import (
	"fmt"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

const (
	datagramBatch  = 64
	datagramBudget = 4        // batches per event: the socket is level-triggered
	datagramSlot   = 16 << 10 // bytes; what is longer is counted as refused
)

// datagrams is the UDP echo of one loop: its SO_REUSEPORT socket and the arrays of its two system calls.
type datagrams struct {
	fd  int
	in  *sys.Inbox
	out *sys.Outbox
}

// listenDatagrams opens *address and writes back the address it got.
func (l *loop) listenDatagrams(address *string) error {
	a, err := sys.ParseAddr(*address)
	if err != nil {
		return err
	}
	fd, bound, err := sys.ListenDatagrams(a, false, true)
	if err != nil {
		return err
	}
	*address = bound.String()
	l.datagrams = &datagrams{fd: fd, in: sys.NewInbox(datagramBatch, datagramSlot), out: sys.NewOutbox(datagramBatch, 1)}
	if errno := l.ep.Add(fd, sys.In, 0, genDatagrams); errno != 0 {
		return fmt.Errorf("epoll_ctl add %s: %w", bound, errno)
	}
	return nil
}

// serveDatagrams sends back what has come. A datagram of the generator also learns which port it came from, or is only
// counted when it asks for no reply; anything else comes back as it was.
func (l *loop) serveDatagrams(d *datagrams) {
	for range datagramBudget {
		n, errno := d.in.Receive(d.fd)
		if errno != 0 {
			return
		}
		refused := int64(0)
		for i := range n {
			if d.in.Truncated(i) {
				refused++
				continue
			}
			b := d.in.Payload(i)
			if h, ok := wire.ParseDatagram(b); ok {
				if h.NoReply {
					continue
				}
				wire.StampSeen(b, uint16(d.in.From(i).Port()))
			}
			if len(b) > 0 {
				d.out.Open(d.in.From(i), nil, 0)
				d.out.Put(b)
			}
		}
		l.s.datagramsReceived.Add(int64(n) - refused)
		l.s.refused.Add(refused)
		if d.out.Len() > 0 {
			sent, _ := d.out.Send(d.fd) // what the kernel does not take is lost, as datagrams may be
			l.s.datagramsSent.Add(int64(sent))
		}
		if n < d.in.Cap() {
			return
		}
	}
}
