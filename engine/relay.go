package engine

// pumpBudget is the number of bytes a direction may move before other sockets of the shard have their turn.
const pumpBudget = 1 << 20

// relay reacts to an event of x in an open session: what waits for x goes out first, then what x sent is taken.
func (s *session) relay(x *side) {
	y := x.peer()
	if x.writable && x.backlogged() {
		s.pump(y, x)
	}
	if x.readable {
		s.pump(x, y)
	}
	s.settle()
}

// pump moves bytes from src to dst until src has no more, dst takes no more, or the budget is spent. It notes what it
// learns in src and dst; settle draws the conclusions.
func (s *session) pump(src, dst *side) {
	if src.conn != nil || dst.conn != nil {
		s.bridge(src, dst)
		return
	}
	if dst.failed {
		return // nowhere to go
	}
	if dst.backlogged() && !(dst.writable && dst.flush()) {
		return // src is not read while dst has a backlog
	}
	sh := s.sh
	for budget := pumpBudget; src.readable; {
		if budget <= 0 {
			sh.loop.Rearm(int(src.fd)) // it will be reported again, after the others
			return
		}
		most := pumpBudget
		if s.metered {
			if most = s.meter.allow(dst.kind, most); most == 0 {
				return // the meter's timer goes on
			}
		}
		if src.splicing {
			allowed := min(budget, pipeSize, most)
			moved := s.splice(src, dst, allowed)
			budget -= moved
			if s.metered {
				s.meter.spend(dst.kind, moved, allowed)
			}
			if dst.failed || dst.backlogged() {
				return
			}
			continue
		}
		n := src.read(sh.buf[:min(len(sh.buf), most)])
		if n == 0 {
			continue
		}
		if s.metered {
			s.meter.spend(dst.kind, n, min(len(sh.buf), most))
		}
		budget -= n
		if n < bulkRead {
			src.streak = 0
		} else if src.streak++; src.streak >= bulkStreak && sh.splice {
			src.splicing, src.streak = true, 0
		}
		took := dst.send(sh.buf[:n], src.eof && !src.failed)
		if dst.failed {
			return
		}
		if took < n {
			dst.park(sh.buf[took:n])
			return
		}
	}
}

// settle brings the session where its sides are: passes on the end of a stream, passes on a reset, or ends.
func (s *session) settle() {
	c, b := &s.client, &s.backend
	if c.failed || b.failed {
		s.settleFailed()
		return
	}
	// A direction is over when src has nothing more to say and dst has all of it.
	up := c.eof && !b.backlogged()
	down := b.eof && !c.backlogged()
	if up && b.conn != nil {
		up = b.part()
	}
	if down && c.conn != nil {
		down = c.part()
	}
	if c.failed || b.failed { // there was more to send, and it could not be sent
		s.settleFailed()
		return
	}
	switch {
	case up && down:
		s.end(s.first)
	case up && !b.shut:
		b.shut = true
		sysShutdown(int(b.fd))
		s.halfClosed()
	case down && !c.shut:
		c.shut = true
		sysShutdown(int(c.fd))
		s.halfClosed()
	}
}

// settleFailed handles a session one end of which was reset or lost: the other end still gets everything that was sent
// before, then a reset of its own.
func (s *session) settleFailed() {
	gone, other := &s.client, &s.backend
	if !gone.failed {
		gone, other = other, gone
	}
	if !other.failed && gone.readable {
		s.pump(gone, other)
	}
	switch {
	case other.failed:
		s.end(s.fault)
	case gone.eof && !other.backlogged():
		s.abort(other)
	case !s.failing:
		s.nowFailing()
	}
}
