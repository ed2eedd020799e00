package engine

import (
	"bytes"
	"net/netip"
	"slices"
	"syscall"

	"awe4lb/config"
	"awe4lb/engine/proxyproto"
)

// What backends are told of the clients of datagrams, by PROXY headers: docs/decisions/0055-proxy-headers-of-datagrams.md.

// announcement is how the backends of a pool are told who a client is.
type announcement struct {
	on    bool
	first bool // only in the first datagram of a flow
	id    bool // with a unique id
	crc   bool // with a checksum
}

func announcementOf(p *config.Pool) announcement {
	return announcement{on: p.SendProxy == "v2", first: p.SendProxyDatagrams == "first",
		id: slices.Contains(p.ProxyTLVs, "unique_id"), crc: slices.Contains(p.ProxyTLVs, "crc32c")}
}

// introduction is what only those flows have whose client a proxy has told of, or whose backend is told who it is.
type introduction struct {
	introduced        // what the proxy told, or we made up: where the client sent to, and the flow's id
	first, told bool  // the header is only for the first datagram; that has been sent
	size        uint8 // of header; 0: this backend is not told
	header      [proxyproto.MaxDatagramSize]byte
}

// present readies what f's backend, t, is told.
func (fl *flows) present(f *flow, t *target) {
	if f.intro == 0 {
		f.intro = fl.intros.alloc()
	}
	in := fl.intros.at(f.intro)
	in.size, in.told, in.first = 0, false, t.announce.first
	if !t.announce.on {
		return
	}
	if t.announce.id && in.idLen == 0 {
		in.idLen = uint8(len(appendID(in.id[:0])))
	}
	in.size = uint8(len(fl.appendHeader(in.header[:0], &f.key, &in.introduced, &t.announce)))
}

// appendHeader appends the header that tells of key's client, who was introduced by a proxy or by nobody.
func (fl *flows) appendHeader(out []byte, key *flowKey, told *introduced, how *announcement) []byte {
	l := fl.listeners[key.listener]
	c := proxyproto.Client{Source: netip.AddrPortFrom(key.clientIP(), key.port), Datagram: true, CRC32C: how.crc}
	switch local := l.binding.local.IP; {
	case told.to != [16]byte{}:
		c.Dest = netip.AddrPortFrom(netip.AddrFrom16(told.to).Unmap(), told.toPort)
	case l.wildcard:
		c.Dest = netip.AddrPortFrom(netip.AddrFrom16(key.local).Unmap(), local.Port())
	default:
		c.Dest = local
	}
	if how.id {
		c.UniqueID = told.id[:told.idLen]
	}
	return proxyproto.Append2(out, &c)
}

func (fl *flows) forgetIntro(f *flow) {
	if f.intro != 0 {
		fl.intros.release(f.intro)
		f.intro = 0
	}
}

// sendIntroduced is send for datagrams of f's client to its backend, from fl.in. Headers are not counted in what it has done:
// bytes are those of clients.
func (fl *flows) sendIntroduced(f *flow, d *destination, slots []slot) (rest []slot, done sent, errno syscall.Errno) {
	in := fl.intros.at(f.intro)
	header := in.header[:in.size]
	switch {
	case len(header) == 0 || in.first && in.told:
		return fl.send(d, fl.in, slots)
	case !in.first:
		return fl.sendHeaded(d, header, slots)
	}
	for len(slots) > 0 && !in.told {
		s := slots[0]
		count, size := s.shape(fl.in)
		size = min(size, len(fl.in.data(int(s.i))))
		fl.joining().fill(int(s.i), header, fl.in.data(int(s.i))[:size])
		if fits(d.v4, size+len(header)) {
			_, one, errno := fl.send(d, fl.joined, append(fl.joins[:0], slot{i: s.i}))
			if errno != 0 {
				return slots, done, errno
			}
			if in.told = one.datagrams > 0; in.told { // else the next one takes the header
				done = sent{1, uint64(size), 1}
			}
		} else {
			fl.drop(d.st, d.direction, DropTooBig, 1)
		}
		if count > 1 {
			fl.in.behead(int(s.i), size)
		} else {
			slots = slots[1:]
		}
	}
	rest, more, errno := fl.send(d, fl.in, slots)
	done.also(more)
	return rest, done, errno
}

// sendHeaded sends each datagram of those slots of fl.in with a header.
func (fl *flows) sendHeaded(d *destination, header []byte, slots []slot) (rest []slot, done sent, errno syscall.Errno) {
	b := fl.joining()
	for len(slots) > 0 {
		joined := fl.joins[:0]
		for _, s := range slots {
			if _, size := s.shape(fl.in); !fits(d.v4, size+len(header)) {
				break
			}
			joined = append(joined, b.join(header, fl.in, s))
		}
		if len(joined) == 0 {
			fl.dropSlots(d.st, d.direction, DropTooBig, fl.in, slots[:1])
			slots = slots[1:]
			continue
		}
		left, more, errno := fl.send(d, b, joined)
		more.bytes -= more.datagrams * uint64(len(header))
		done.also(more)
		if errno != 0 {
			return slots[len(joined)-len(left):], done, errno
		}
		slots = slots[len(joined):]
	}
	return nil, done, 0
}

// also adds what a later call has done.
func (s *sent) also(more sent) {
	if more.datagrams > 0 {
		*s = sent{s.datagrams + more.datagrams, s.bytes + more.bytes, more.last}
	}
}

// fits reports whether a datagram to a backend of a family may have so many bytes. The kernel refuses more too, but tells it twice: by the call and
// in the error queue.
func fits(v4 bool, size int) bool {
	if v4 {
		return size <= 65535-20-8
	}
	return size <= 65535-8
}

// joining returns the batch for datagrams with headers, made when it is first wanted, and large enough for what is in fl.in.
func (fl *flows) joining() *batch {
	if fl.joined == nil {
		fl.joined = newBatch(inBatch, false)
		fl.joins = make([]slot, 0, inBatch)
	}
	size := fl.in.size + proxyproto.MaxDatagramSize
	if fl.in.size == maxDatagram { // what the kernel has joined takes a header for each piece
		size += (maxJoined - 1) * proxyproto.MaxDatagramSize
	}
	fl.joined.resize(size)
	return fl.joined
}

// maxJoined is more than the kernel joins by UDP_GRO, and than it sends at once: UDP_MAX_SEGMENTS since 6.8.
const maxJoined = 128

// join makes slot s.i of b that of from with a header before each of its datagrams, and returns how it is to be sent.
func (b *batch) join(header []byte, from *batch, s slot) slot {
	i := int(s.i)
	data := from.data(i)
	if s.segment == 0 {
		b.fill(i, header, data)
		return s
	}
	out, at := b.buf[i*b.size:][:b.size], 0
	for len(data) > 0 && len(out)-at >= len(header)+int(s.segment) {
		piece := data[:min(int(s.segment), len(data))]
		at += copy(out[at:], header)
		at += copy(out[at:], piece)
		data = data[len(piece):]
	}
	b.hdrs[i].Len = uint32(at)
	return slot{s.i, s.segment + uint16(len(header))}
}

// fill makes slot i of b one datagram of two parts.
func (b *batch) fill(i int, header, data []byte) {
	out := b.buf[i*b.size:][:b.size]
	n := copy(out, header)
	b.hdrs[i].Len = uint32(n + copy(out[n:], data))
}

// withHeader returns a datagram as f's backend is to get it. The result is valid until the next call.
func (fl *flows) withHeader(f *flow, data []byte) []byte {
	in := fl.intros.at(f.intro)
	if in.size == 0 || in.first && in.told {
		return data
	}
	in.told = true
	fl.single = append(append(fl.single[:0], in.header[:in.size]...), data...)
	return fl.single
}

// withoutHeader returns a datagram that came back from f's backend as its client had sent it.
func (fl *flows) withoutHeader(f *flow, data []byte) []byte {
	if f.intro == 0 {
		return data
	}
	in := fl.intros.at(f.intro)
	rest, _ := bytes.CutPrefix(data, in.header[:in.size])
	return rest
}

// joinDirect puts slot i of fl.in, a datagram of key's client for t, into fl.joined with its header. It returns how it is to be
// sent, and the length of the header. For mode datagram without replies, which has no flows.
func (fl *flows) joinDirect(i int, key *flowKey, t *target) (slot, int) {
	var told introduced
	if key.via != 0 {
		if s := fl.proxies.at(key.via); !s.own {
			told = s.introduced
		}
	}
	if t.announce.id && told.idLen == 0 {
		told.idLen = uint8(len(appendID(told.id[:0])))
	}
	var scratch [proxyproto.MaxDatagramSize]byte
	header := fl.appendHeader(scratch[:0], key, &told, &t.announce)
	return fl.joining().join(header, fl.in, slot{uint16(i), fl.segment[i]}), len(header)
}

// headerLen returns how long the header is that a datagram to t begins with.
func (t *target) headerLen(data []byte) int {
	if !t.announce.on {
		return 0
	}
	n, _ := proxyproto.ParseDatagram(data, &t.fl.sh.proxied)
	return n
}
