package engine

import (
	"hash/maphash"
	"unsafe"
)

// flowKey is what a datagram says of the flow it belongs to. Every byte counts: it is hashed and compared as memory.
//
// Behind a proxy that sends PROXY headers, client and port are those that a header tells of, and via says who told: so one
// socket of a proxy may carry many clients, and what goes by the client is the same for all.
type flowKey struct {
	client   [16]byte // the client's address, IPv4 as mapped
	local    [16]byte // the address it sent to, where the listener takes several; else zero
	zone     uint32   // interface of a link-local client
	listener uint32   // number in flows.listeners
	target   uint32   // number in flows.targets in mode datagram, where a client has a flow for each backend; else 0
	via      uint32   // number in flows.proxies of the socket that told of the client; 0: it came itself
	port     uint16   // the client's port
	zero     uint16   // always 0: there is no padding between what is hashed
}

// flowTable holds a shard's flows and finds them by key. Flows live in chunks without pointers, so that the collector
// does not look at them, and are named by number; 0 is no flow. Owned by the shard's goroutine.
//
// The index is open addressing with linear probing: 8 bytes an entry, of which the half that is a part of the hash saves
// the look at flows that are not the one (17 ns a hit with 100 flows, see BenchmarkFlowTable).
type flowTable struct {
	seed    maphash.Seed
	chunks  []*[flowChunk]flow
	free    uint32 // head of the list of unused flows, linked by next
	used    int    // flows in use
	index   []indexEntry
	indexed int // flows in the index
}

type indexEntry struct {
	hash uint32
	flow uint32
}

const (
	flowChunk     = 1 << flowChunkBits // flows in a chunk: some 160 kB
	flowChunkBits = 10
	minIndex      = 256
)

func (t *flowTable) init() {
	t.seed = maphash.MakeSeed() // clients choose keys: they shall not know the hash
	t.index = make([]indexEntry, minIndex)
}

// at returns the flow of that number, which is not 0.
func (t *flowTable) at(n uint32) *flow { return &t.chunks[n>>flowChunkBits][n&(flowChunk-1)] }

// hash returns the hash of a key.
func (t *flowTable) hash(k *flowKey) uint32 {
	return uint32(maphash.Bytes(t.seed, unsafe.Slice((*byte)(unsafe.Pointer(k)), unsafe.Sizeof(*k))))
}

// find returns the flow with that key, whose hash is h, or 0.
func (t *flowTable) find(k *flowKey, h uint32) uint32 {
	mask := uint32(len(t.index) - 1)
	for p := h & mask; ; p = (p + 1) & mask {
		e := t.index[p]
		if e.flow == 0 {
			return 0
		}
		if e.hash == h && t.at(e.flow).key == *k {
			return e.flow
		}
	}
}

// alloc returns an unused flow, zero but for its number, which is not in the index yet. It allocates only when there are
// more flows than ever before.
func (t *flowTable) alloc() *flow {
	if t.free == 0 {
		t.extend()
	}
	n := t.free
	f := t.at(n)
	t.free = f.next
	*f = flow{number: n, fd: -1}
	t.used++
	return f
}

// extend adds a chunk. Number 0 stays unused.
func (t *flowTable) extend() {
	base := uint32(len(t.chunks)) << flowChunkBits
	chunk := new([flowChunk]flow)
	t.chunks = append(t.chunks, chunk)
	for i := uint32(flowChunk - 1); base+i > 0; i-- {
		chunk[i].next = t.free
		t.free = base + i
		if i == 0 {
			break
		}
	}
}

// release gives f back, which must not be in the index.
func (t *flowTable) release(f *flow) {
	n := f.number
	*f = flow{next: t.free}
	t.free = n
	t.used--
}

// shrink gives back what a peak has left behind, when no flow is left. Numbers of flows mean nothing afterwards: it is not for
// the middle of a batch.
func (t *flowTable) shrink() {
	if t.used == 0 && len(t.chunks) > 1 {
		t.chunks, t.free = nil, 0
		t.index = make([]indexEntry, minIndex)
	}
}

// put enters f into the index under its key, whose hash is h.
func (t *flowTable) put(f *flow, h uint32) {
	if 4*(t.indexed+1) > 3*len(t.index) {
		old := t.index
		t.index = make([]indexEntry, 2*len(old))
		for _, e := range old {
			if e.flow != 0 {
				t.place(e)
			}
		}
	}
	f.hash = h
	t.place(indexEntry{h, f.number})
	t.indexed++
}

func (t *flowTable) place(e indexEntry) {
	mask := uint32(len(t.index) - 1)
	p := e.hash & mask
	for t.index[p].flow != 0 {
		p = (p + 1) & mask
	}
	t.index[p] = e
}

// remove takes f, which is in the index, out of it. Entries behind it move up, so that no marks of removed ones are left.
func (t *flowTable) remove(f *flow) {
	mask := uint32(len(t.index) - 1)
	p := f.hash & mask
	for t.index[p].flow != f.number {
		p = (p + 1) & mask
	}
	for q := (p + 1) & mask; t.index[q].flow != 0; q = (q + 1) & mask {
		// The entry at q may move to p unless its home lies behind p.
		if home := t.index[q].hash & mask; (q-home)&mask >= (q-p)&mask {
			t.index[p] = t.index[q]
			p = q
		}
	}
	t.index[p] = indexEntry{}
	t.indexed--
}
