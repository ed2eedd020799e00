package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func testKey(n int) *flowKey {
	k := new(flowKey)
	binary.BigEndian.PutUint32(k.client[12:], uint32(n))
	k.port = uint16(n) | 1
	return k
}

func TestFlowHasNoPointersAndKeyNoPadding(t *testing.T) {
	if n := unsafe.Sizeof(flowKey{}); n != 52 {
		t.Errorf("a key has %d bytes; want 52, or padding is hashed", n)
	}
	if n := unsafe.Sizeof(flow{}); n > 200 {
		t.Errorf("a flow has %d bytes; want at most 200", n)
	}
}

// The table against a map, through random insertions, removals and searches.
func TestFlowTableAgainstMap(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 3))
		var table flowTable
		table.init()
		model := map[int]uint32{}
		for range 20_000 {
			n := r.IntN(3000)
			k := testKey(n)
			h := table.hash(k)
			if r.IntN(4) == 0 {
				h &= 0xff // as if many hashes collided: every entry far from home
			}
			want := model[n]
			if want != 0 {
				h = table.at(want).hash
			}
			if got := table.find(k, h); got != want {
				t.Fatalf("seed %d: found %d; want %d", seed, got, want)
			}
			switch {
			case want == 0:
				f := table.alloc()
				f.key = *k
				table.put(f, h)
				model[n] = f.number
			case r.IntN(2) == 0:
				f := table.at(want)
				table.remove(f)
				table.release(f)
				delete(model, n)
			}
			if table.used != len(model) || table.indexed != len(model) {
				t.Fatalf("seed %d: %d in use, %d in the index; want %d", seed, table.used, table.indexed, len(model))
			}
		}
		for _, number := range model {
			f := table.at(number)
			table.remove(f)
			table.release(f)
		}
		table.shrink()
		if table.used != 0 || len(table.chunks) > 1 || len(table.index) != minIndex {
			t.Errorf("seed %d: a peak has left %d chunks and an index of %d", seed, len(table.chunks), len(table.index))
		}
	}
}

// The wheel against a list, without a clock: nothing is early, nothing later than the bound, nothing lost.
func TestFlowWheelAgainstList(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 4))
		var table flowTable
		table.init()
		w := flowWheel{flows: &table}
		now := r.Int64N(1 << 22)
		type entry struct{ due, late int64 }
		model := map[uint32]entry{}
		for range 30_000 {
			switch r.IntN(5) {
			case 0, 1:
				delay := r.Int64N([]int64{10, 1000, 20_000, 300_000, 2_000_000}[r.IntN(5)])
				f := table.alloc()
				late := int64(1 << fineBits)
				if delay >= (fineSlots-1)<<fineBits {
					late = 1 << coarseBits
				}
				at := w.add(f, now, delay)
				// What lies beyond the ring comes up once round, to be set again.
				if span := int64(coarseSlots << coarseBits); delay < span-2<<coarseBits && (at < now+delay || at > now+delay+late) {
					t.Fatalf("seed %d: due at %d, %d after its time", seed, at, at-now-delay)
				}
				model[f.number] = entry{min(at, now+delay), at}
			case 2:
				for n := range model {
					f := table.at(n)
					w.remove(f)
					table.release(f)
					delete(model, n)
					break
				}
			case 3:
				now += r.Int64N([]int64{5, 500, 50_000}[r.IntN(3)])
				for f := w.pop(now); f != nil; f = w.pop(now) {
					e, ok := model[f.number]
					if !ok || f.slot != 0 {
						t.Fatalf("seed %d: popped %d, which is not set", seed, f.number)
					}
					if e.late > now {
						t.Fatalf("seed %d: popped %d ticks before its time", seed, e.late-now)
					}
					delete(model, f.number)
					table.release(f)
				}
				for n, e := range model {
					if e.late <= now {
						t.Fatalf("seed %d: %d was due at %d and is still set at %d", seed, n, e.late, now)
					}
				}
			case 4:
				next := w.next()
				earliest := int64(-1)
				for _, e := range model {
					if earliest < 0 || e.late < earliest {
						earliest = e.late
					}
				}
				if next != earliest {
					t.Fatalf("seed %d: next is %d; want %d", seed, next, earliest)
				}
			}
		}
	}
}

func BenchmarkFlowTable(b *testing.B) {
	for _, flows := range []int{100, 10_000, 1_000_000} {
		b.Run(itoa(flows), func(b *testing.B) {
			var table flowTable
			table.init()
			keys := make([]flowKey, flows)
			for i := range keys {
				keys[i] = *testKey(i)
				f := table.alloc()
				f.key = keys[i]
				table.put(f, table.hash(&keys[i]))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := &keys[i%flows]
				if table.find(k, table.hash(k)) == 0 {
					b.Fatal("lost")
				}
			}
		})
	}
}

func itoa(n int) string {
	switch {
	case n >= 1_000_000:
		return "1M"
	case n >= 1000:
		return "10k"
	}
	return "100"
}
