package engine

import "awe4lb/engine/proxyproto"

// proxySockets are the sockets of proxies before us that have told of clients by PROXY headers. A proxy may put a header
// before every datagram, and have one socket for all its clients, or only before the first one of a client that has a
// socket of its own: a datagram without a header is of the client that the last one from the same socket told of.
// Owned by the shard's goroutine.
//
// A socket is remembered while a flow that it told of lives, and for some time after: in a list, the one that was used
// longest ago first, of at most maxIdleProxies.
type proxySockets struct {
	slab[proxySocket]
	byKey          map[flowKey]uint32
	oldest, newest uint32 // of those without a flow
	idle           int
}

// proxySocket is one of them, as seen by one listener.
type proxySocket struct {
	// Set by take.
	key flowKey // of a datagram that is its own

	// What it told last.
	own    bool // it speaks for itself: LOCAL, or addresses of a family we do not know
	client [16]byte
	port   uint16
	introduced

	last         uint32 // tick of the last datagram
	flows        int    // whose key has it
	older, newer uint32 // in the list
}

// introduced is what a header tells beside the client.
type introduced struct {
	toPort uint16   // where the client sent to
	to     [16]byte // the same; zero when nobody told
	idLen  uint8
	id     [proxyproto.MaxID]byte // unique id that goes through all proxies
}

// maxIdleProxies bounds the sockets that a shard remembers without a flow, 400 bytes each. One that is forgotten and sends no
// header again is taken for a client where headers are optional, and not heard where they are required.
const maxIdleProxies = 4096

// find returns the socket with that key, which has been heard within the last so many ticks or has a flow; 0 if there is none.
func (p *proxySockets) find(key *flowKey, now, timeout int64) uint32 {
	n := p.byKey[*key]
	if n == 0 {
		return 0
	}
	if s := p.at(n); s.flows == 0 && int64(uint32(now)-s.last) > timeout {
		p.drop(n)
		return 0
	}
	return n
}

// take returns the socket with that key, known or not. It allocates when there are more than ever before.
func (p *proxySockets) take(key *flowKey) uint32 {
	if n := p.byKey[*key]; n != 0 {
		return n
	}
	if p.idle >= maxIdleProxies {
		p.drop(p.oldest)
	}
	if p.byKey == nil {
		p.byKey = map[flowKey]uint32{}
	}
	n := p.alloc()
	p.at(n).key = *key
	p.byKey[*key] = n
	p.push(n)
	return n
}

// touch notes that socket n has been heard.
func (p *proxySockets) touch(n uint32, now int64) {
	s := p.at(n)
	s.last = uint32(now)
	if s.flows == 0 && p.newest != n {
		p.unlink(n)
		p.push(n)
	}
}

// acquire counts a flow of socket n.
func (p *proxySockets) acquire(n uint32) {
	s := p.at(n)
	if s.flows == 0 {
		p.unlink(n)
	}
	s.flows++
}

// release gives it back.
func (p *proxySockets) release(n uint32) {
	s := p.at(n)
	if s.flows--; s.flows > 0 {
		return
	}
	if p.idle >= maxIdleProxies {
		p.drop(p.oldest)
	}
	p.push(n)
}

// forget forgets the sockets that a listener has heard, which has no flow.
func (p *proxySockets) forget(listener uint32) {
	for n := p.oldest; n != 0; {
		s := p.at(n)
		next := s.newer
		if s.key.listener == listener {
			p.drop(n)
		}
		n = next
	}
}

// drop forgets socket n, which has no flow.
func (p *proxySockets) drop(n uint32) {
	p.unlink(n)
	delete(p.byKey, p.at(n).key)
	p.slab.release(n)
}

func (p *proxySockets) push(n uint32) {
	s := p.at(n)
	s.older, s.newer = p.newest, 0
	if p.newest != 0 {
		p.at(p.newest).newer = n
	} else {
		p.oldest = n
	}
	p.newest = n
	p.idle++
}

func (p *proxySockets) unlink(n uint32) {
	s := p.at(n)
	if s.older != 0 {
		p.at(s.older).newer = s.newer
	} else {
		p.oldest = s.newer
	}
	if s.newer != 0 {
		p.at(s.newer).older = s.older
	} else {
		p.newest = s.older
	}
	s.older, s.newer = 0, 0
	p.idle--
}
