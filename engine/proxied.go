package engine

import (
	"net/netip"

	"awe4lb/engine/proxyproto"
)

// Who the client of a datagram is, where a proxy tells by a PROXY header: docs/decisions/0055-proxy-headers-of-datagrams.md.

// introduce takes the header off the datagram in slot i, which came from key, and makes key that of the client it tells of.
// It returns why the datagram is dropped, or kept. Never allocates for a socket that is known.
func (l *datagramListener) introduce(i int, key *flowKey) DropReason {
	fl := l.fl
	config := &l.front.config.ProxyProtocol
	if !trusts(config, key.clientIP()) {
		if config.Accept == "required" {
			return DropUntrusted
		}
		return kept
	}
	h := &fl.sh.proxied
	n, status := proxyproto.ParseDatagram(fl.in.data(i), h)
	var number uint32
	switch status {
	case proxyproto.Found:
		number = fl.proxies.take(key)
		fl.proxies.at(number).tell(h)
		fl.in.behead(i, n)
	case proxyproto.NotPROXY:
		number = fl.proxies.find(key, fl.now, ticks(int64(l.front.config.UDP.IdleTimeout)))
		if number == 0 && config.Accept == "required" {
			return DropBadProxy
		}
		if number == 0 {
			return kept
		}
	default:
		return DropBadProxy
	}
	fl.proxies.touch(number, fl.now)
	s := fl.proxies.at(number)
	key.via = number
	if !s.own {
		key.client, key.port, key.zone = s.client, s.port, 0
	}
	return kept
}

// tell notes what a header tells. One of connections is as good as one of datagrams: proxies for DNS send it for clients of
// theirs that came by TCP or HTTPS.
func (s *proxySocket) tell(h *proxyproto.Header) {
	s.introduced = introduced{}
	s.own = h.Local || !h.Known
	if s.own {
		return
	}
	s.client, s.port = h.Source.Addr().As16(), h.Source.Port()
	s.to, s.toPort = h.Dest.Addr().As16(), h.Dest.Port()
	if id := h.TLV(proxyproto.TLVUniqueID); len(id) <= len(s.id) {
		s.idLen = uint8(copy(s.id[:], id))
	}
}

// toldOf reports whether s told last of the client of key.
func (s *proxySocket) toldOf(key *flowKey) bool {
	return s.own && key.client == s.key.client && key.port == s.key.port || !s.own && key.client == s.client && key.port == s.port
}

// recall gives f, which begins, what the proxy told beside the client.
func (fl *flows) recall(f *flow) {
	if s := fl.proxies.at(f.key.via); s.toldOf(&f.key) && !s.own {
		f.intro = fl.intros.alloc()
		fl.intros.at(f.intro).introduced = s.introduced
	}
}

// told returns who told of f's client, invalid when it came itself, and the id that f has, "" for none.
func (fl *flows) told(f *flow) (via netip.AddrPort, id string) {
	if f.key.via != 0 {
		if key := &fl.proxies.at(f.key.via).key; key.client != f.key.client || key.port != f.key.port {
			via = key.clientAddr()
		}
	}
	if f.intro != 0 {
		in := fl.intros.at(f.intro)
		id = string(in.id[:in.idLen])
	}
	return via, id
}

// behead takes the first n bytes of slot i away. It moves the rest, so that slots without headers begin where they did: 30 ns
// for 1,400 bytes.
func (b *batch) behead(i, n int) {
	data := b.data(i)
	copy(data, data[n:])
	b.hdrs[i].Len -= uint32(n)
}

// takeApart serves n slots in which the kernel has joined datagrams: each may have a header of its own.
func (l *datagramListener) takeApart(n int) {
	fl := l.fl
	if fl.apart == nil {
		fl.apart = newBatch(inBatch, true)
	}
	in := fl.in
	fl.apart.resize(in.size)
	filled := 0
	serve := func() {
		fl.in, fl.apart = fl.apart, in
		l.serve(filled)
		fl.in, fl.apart = in, fl.in
		filled = 0
	}
	for i := range n {
		data, segment := in.data(i), in.beside(i).segment
		for first := true; first || len(data) > 0; first = false {
			piece := data
			if segment > 0 {
				piece = data[:min(segment, len(data))]
			}
			data = data[len(piece):]
			fl.apart.copySlot(filled, in, i, piece)
			if filled++; filled == inBatch {
				serve()
			}
		}
	}
	if filled > 0 {
		serve()
	}
}

// copySlot makes slot i of b like slot j of from, with data in it.
func (b *batch) copySlot(i int, from *batch, j int, data []byte) {
	b.hdrs[i].Len = uint32(copy(b.buf[i*b.size:][:b.size], data))
	b.hdrs[i].Hdr.Flags = from.hdrs[j].Hdr.Flags
	b.hdrs[i].Hdr.Controllen = from.hdrs[j].Hdr.Controllen
	b.oob[i] = from.oob[j]
	if b.from != nil && from.from != nil {
		b.from[i] = from.from[j]
	}
}
