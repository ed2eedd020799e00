package load

import (
	"fmt"
	"time"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// This file holds what happens to one datagram of the mode datagrams: how it is made, sent, judged when an answer comes,
// and given up when none does.

// compose puts n datagrams of a client into the outbox as one message.
func (m *datagrams) compose(client, n int, at int64, measured bool) {
	sock, address := m.place(client)
	if sock != m.on || m.out.Len() == datagramBatch {
		m.flush()
		m.on = sock
	}
	from, segment := sys.ClientAddr(address), 0
	if n > 1 {
		segment = m.cfg.DatagramBytes
	}
	m.out.Open(&m.l.r.target, &from, segment)
	for range n {
		h := wire.Datagram{NoReply: m.cfg.OneWay, Run: m.run, Client: uint32(client), Seq: m.next, Sent: at}
		head := m.heads[m.pending][:]
		m.pending++
		h.Put(head)
		m.out.Put(head)
		if m.body > 0 {
			m.out.Put(wire.DatagramBody(uint32(client), m.next, m.body))
		}
		if !m.cfg.OneWay {
			m.remember(fate{at: at, client: uint32(client), state: fateOut, measured: measured})
		}
		m.next++
	}
	if measured {
		m.l.datagrams.Sent += int64(n)
		m.l.bytesUp += int64(n * m.cfg.DatagramBytes)
		if m.cfg.OneWay {
			m.l.units += int64(n)
		}
	}
}

// remember takes the ring's place for the next sequence number; whoever sat there and is still out is given up.
func (m *datagrams) remember(f fate) {
	e := &m.ring[m.next%datagramRing]
	if e.state == fateOut {
		m.lose(e)
	}
	*e = f
	m.inFlight++
}

// flush sends what waits. The kernel refuses a datagram only for want of memory, which is loss like any other, or for a
// mistake of ours, which is an error.
func (m *datagrams) flush() {
	if m.out.Len() == 0 {
		return
	}
	want := m.out.Len()
	sent, errno := m.out.Send(m.socks[m.on])
	m.pending = 0
	if sent < want && errno.Temporary() {
		m.l.datagrams.Refused += int64(want - sent)
	} else if sent < want {
		m.l.r.fail(fmt.Sprintf("%s: send: %s", ErrIO, errno.Error()), int64(want-sent))
	}
}

// take judges datagram i of the inbox, which came to a port.
func (m *datagrams) take(sock, i int, now int64, measuring bool) {
	b := m.in.Payload(i)
	h, ours := wire.ParseDatagram(b)
	if ours && h.Run != m.run && h.Run-m.l.r.runNumber >= uint32(m.cfg.Threads) {
		m.l.datagrams.Strays++ // an answer to a former run, which had these ports
		return
	}
	switch {
	case !m.in.From(i).Same(&m.l.r.target):
		m.l.r.fail(ErrElsewhere, 1)
		return
	case !ours, m.in.Truncated(i), len(b) != m.cfg.DatagramBytes, h.Seq >= m.next && h.Run == m.run,
		!wire.DatagramMatches(b[wire.DatagramHeader:], h.Client, h.Seq):
		m.l.r.fail(ErrMismatch, 1)
		return
	case h.Run != m.run, m.clientAt(sock, m.in.To(i)) != int(h.Client):
		m.l.r.fail(ErrCrossed, 1)
		return
	case m.next-h.Seq > datagramRing:
		m.l.datagrams.Late++ // its fate was settled and forgotten
		return
	}
	e := &m.ring[h.Seq%datagramRing]
	switch e.state {
	case fateOut:
		m.inFlight--
		m.answered(e, &h, now, measuring)
	case fateLost:
		m.l.datagrams.Late++
	default:
		m.l.r.fail(ErrDuplicate, 1)
		return
	}
	e.state = fateAnswered
}

// answered accounts for a round trip.
func (m *datagrams) answered(e *fate, h *wire.Datagram, now int64, measuring bool) {
	if before := m.seen[h.Client]; before != h.Seen {
		m.seen[h.Client] = h.Seen
		if before != 0 {
			m.l.datagrams.Moved++
		}
	}
	if !m.ready() {
		m.proved++
		return
	}
	if measuring {
		m.l.units++
		m.l.bytesDown += int64(m.cfg.DatagramBytes)
	}
	if e.measured {
		m.l.latency.Record(time.Duration(now - e.at))
	}
}

// giveUp settles the fate of what was sent too long ago. Sends are nearly in order of time, so only the oldest is looked at.
func (m *datagrams) giveUp(now int64) {
	limit := int64(m.cfg.Timeout)
	if m.next > datagramRing {
		m.tail = max(m.tail, m.next-datagramRing)
	}
	for ; m.tail < m.next; m.tail++ {
		e := &m.ring[m.tail%datagramRing]
		if e.state != fateOut {
			continue
		}
		if now-e.at < limit {
			return
		}
		m.lose(e)
	}
}

// lose counts a datagram as lost; while clients are proved, it is sent again.
func (m *datagrams) lose(e *fate) {
	e.state = fateLost
	m.inFlight--
	if !m.ready() {
		if m.tries[e.client]++; m.tries[e.client] < proofTries {
			m.again = append(m.again, e.client)
			return
		}
		m.l.r.fail(ErrTimeout, 1)
		m.proved++
		return
	}
	if e.measured {
		m.l.datagrams.Lost++
	}
}
