package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"awe4lb/internal/lbtest"
)

// end is one end of a connection in memory: a Conn, and what the other end has sent it.
type end struct {
	*Conn
	in   []byte
	off  int
	fin  bool          // nothing more will come
	cut  func(int) int // how many bytes of n the next read returns; nil: all
	tell chan struct{} // notify
}

func (e *end) Pull(b []byte) (int, error) {
	n := len(e.in) - e.off
	switch {
	case n == 0 && e.fin:
		return 0, io.EOF
	case n == 0:
		return 0, ErrWouldBlock
	}
	if e.cut != nil {
		if n = e.cut(n); n == 0 {
			return 0, ErrWouldBlock
		}
	}
	n = copy(b, e.in[e.off:e.off+n])
	if e.off += n; e.off == len(e.in) {
		e.in, e.off = e.in[:0], 0
	}
	return n, nil
}

// take returns n of the bytes that have come.
func (e *end) take(n int) []byte {
	b := bytes.Clone(e.in[e.off : e.off+n])
	e.off += n
	return b
}

// newPair returns the two ends of a connection, before the handshake.
func newPair(ws *Workers, server, client *tls.Config) (s, c *end) {
	s, c = &end{tell: make(chan struct{}, 1)}, &end{tell: make(chan struct{}, 1)}
	s.Conn = ws.Server(Params{Config: server, Source: s, Notify: func() { s.tell <- struct{}{} }})
	c.Conn = ws.Client(Params{Config: client, Source: c, Notify: func() { c.tell <- struct{}{} }})
	return s, c
}

// shake makes the handshake, handing over as much at a time as cut says, and returns the first failure.
func shake(s, c *end, cut func(int) int) error {
	step := func(x, y *end, b []byte) (bool, error) {
		x.Feed(b)
		<-x.tell
		r := x.Result()
		y.in = append(y.in, r.Out...)
		return r.State == Open, r.Err
	}
	opened, err := step(c, s, nil)
	for _, x := range []*end{s, c, s, c, s} {
		y := s
		if x == s {
			y = c
		}
		if x.state == Open {
			continue
		}
		for err == nil && x.off < len(x.in) && x.state == Handshaking {
			n := len(x.in) - x.off
			if cut != nil {
				n = max(1, cut(n))
			}
			opened, err = step(x, y, x.take(n))
		}
		if err != nil {
			return err
		}
	}
	if !opened || s.state != Open || c.state != Open {
		return fmt.Errorf("server %d, client %d", s.state, c.state)
	}
	return nil
}

func newOpenPair(t testing.TB, version uint16) (s, c *end) {
	t.Helper()
	ca := lbtest.NewCA(t)
	server := serverConfig(ca, "a.test")
	server.MaxVersion = version
	ws := newWorkers(t, WorkerOptions{Count: 1})
	s, c = newPair(ws, server, clientConfig(ca, "a.test"))
	if err := shake(s, c, nil); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// TestBulkAllocatesNothing is the gate of the data path: once open, neither end allocates, in either direction.
func TestBulkAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, c := newOpenPair(t, version)
		sc := NewScratch(ScratchBytes)
		plain, got := make([]byte, 100_000), make([]byte, 100_000)
		move := func(from, to *end, size int) {
			var err error
			if to.in, err = from.Write(plain[:size], to.in); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < size; {
				m, own, err := to.Read(sc, got, from.in)
				if n += m; err != nil && err != ErrWouldBlock {
					t.Fatal(err)
				}
				from.in = own
			}
		}
		for _, size := range []int{1, 1000, 16 << 10, 100_000} {
			if n := testing.AllocsPerRun(200, func() { move(s, c, size); move(c, s, size) }); n != 0 {
				t.Errorf("%s, %d bytes: %v allocations", tls.VersionName(version), size, n)
			}
		}
	}
}

// FuzzConn plays a connection of two of our ends, its bytes handed over in random pieces, in the handshake and after it,
// with reads of random sizes, key and record sizes as they come, and ends of all kinds. If flip is not 0 that byte of the
// stream to one end is changed on the way: then something fails, and nothing wrong is ever read.
func FuzzConn(f *testing.F) {
	f.Add(uint64(1), uint32(0), uint8(0))
	f.Add(uint64(2), uint32(700), uint8(1))
	f.Add(uint64(3), uint32(9000), uint8(2))
	f.Add(uint64(4), uint32(300), uint8(3))
	f.Add(uint64(5), uint32(60_000), uint8(6))
	f.Add(uint64(6), uint32(0), uint8(8))
	f.Add(uint64(7), uint32(5000), uint8(9))
	ca := lbtest.NewCA(f)
	pair := ca.Pair("a.test")
	ws, err := NewWorkers(WorkerOptions{Count: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(ws.Close)
	f.Fuzz(func(t *testing.T, seed uint64, flip uint32, form uint8) {
		random := rand.New(rand.NewPCG(seed, uint64(flip)))
		if form&8 != 0 {
			withoutBorrowing(t)
		}
		server := &tls.Config{Certificates: []tls.Certificate{pair}, DynamicRecordSizingDisabled: form&4 == 0}
		client := clientConfig(ca, "a.test")
		if form&1 != 0 {
			server.MaxVersion = tls.VersionTLS12
		}
		s, c := newPair(ws, server, client)
		defer s.Cancel()
		defer c.Cancel()
		victim := s
		if form&2 != 0 {
			victim = c
		}
		cut := func(n int) int { // mostly small, sometimes all
			if random.IntN(4) == 0 {
				return n
			}
			return random.IntN(min(n, 400) + 1)
		}
		seen, flipped := 0, false
		corrupt := func(x *end, from int) { // what came to x since from
			if x != victim || flip == 0 || flipped {
				return
			}
			if at := int(flip) - seen; at < len(x.in)-from {
				x.in[from+at] ^= byte(1 + random.IntN(255))
				flipped = true
			}
			seen += len(x.in) - from
		}
		// A handshake's flights are corrupted by handing them over whole.
		if flip > 0 && flip < 2000 {
			from := 0
			wrapped := func(n int) int { corrupt(victim, from); return cut(n) }
			_ = shake(s, c, wrapped)
			return // it fails or, where the byte does not count, it does not; nothing panics and nothing hangs
		}
		if err := shake(s, c, cut); err != nil {
			t.Fatal(err)
		}
		seen = 2000
		sc := NewScratch(0)
		s.cut, c.cut = cut, cut
		streams := map[*end]*stream{s: newStream(random), c: newStream(random)} // what each is to read
		for round := 0; ; round++ {
			if round > 100_000 {
				t.Fatal("it does not come to an end")
			}
			x, y := s, c
			if random.IntN(2) == 0 {
				x, y = c, s
			}
			if to := streams[y]; random.IntN(2) == 0 && len(y.in) < 1<<20 { // x writes
				from := len(y.in)
				if b := to.send(random); b != nil {
					if y.in, err = x.Write(b, y.in); err != nil {
						t.Fatal(err)
					}
				} else if !y.fin {
					if y.in = x.CloseWrite(y.in); random.IntN(2) == 0 || !to.clean {
						y.fin = true
					}
					if !to.clean {
						y.in = y.in[:from] // a FIN, and no close_notify
					}
				}
				corrupt(y, from)
				continue
			}
			if streams[x].over {
				if streams[y].over {
					return
				}
				continue
			}
			b := make([]byte, MinRead+random.IntN(40_000))
			n, own, err := x.Read(sc, b, nil)
			from := len(y.in)
			y.in = append(y.in, own...)
			corrupt(y, from)
			streams[x].got(t, b[:n])
			switch {
			case err == nil || err == ErrWouldBlock:
			case flipped && x == victim && err != io.EOF:
				return // noticed
			case err == io.EOF && streams[x].clean && streams[x].whole():
				streams[x].over = true
			case err == ErrTruncated && !streams[x].clean:
				streams[x].over = true
			default:
				t.Fatalf("%v; clean %v, whole %v, flipped %v", err, streams[x].clean, streams[x].whole(), flipped)
			}
		}
	})
}

// stream is what one end is to read.
type stream struct {
	out, in     *lbtest.Stream
	left, taken int
	total       int
	clean       bool // it ends with close_notify
	over        bool
	buf         []byte
}

func newStream(random *rand.Rand) *stream {
	n := random.IntN(200_000)
	seed := random.Uint64()
	return &stream{out: lbtest.NewStream(seed, int64(n)), in: lbtest.NewStream(seed, int64(n)), left: n, total: n,
		clean: random.IntN(4) > 0, buf: make([]byte, 70_000)}
}

func (s *stream) send(random *rand.Rand) []byte {
	n, err := s.out.Read(s.buf[:1+random.IntN(len(s.buf))])
	if err != nil {
		return nil
	}
	return s.buf[:n]
}

func (s *stream) got(t *testing.T, b []byte) {
	want := make([]byte, len(b))
	if n, _ := io.ReadFull(s.in, want); n < len(b) || !bytes.Equal(b, want) {
		t.Fatalf("wrong bytes after %d", s.taken)
	}
	s.taken += len(b)
}

func (s *stream) whole() bool { return s.taken == s.total }

func BenchmarkBulk(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, _ := newOpenPair(b, version)
		plain, got, out := make([]byte, 256<<10), make([]byte, 256<<10), make([]byte, 0, MaxCiphertext(256<<10))
		b.Run("write "+tls.VersionName(version), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if out, err = s.Write(plain, out[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, borrow := range []bool{true, false} {
			b.Run(fmt.Sprintf("read %s borrowing %v", tls.VersionName(version), borrow), func(b *testing.B) {
				if !borrow {
					withoutBorrowing(b)
				}
				s, c := newOpenPair(b, version)
				sc := NewScratch(ScratchBytes)
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					c.in, _ = s.Write(plain, c.in)
					b.StartTimer()
					for n := 0; n < len(plain); {
						m, _, err := c.Read(sc, got, out[:0])
						if n += m; err != nil && err != ErrWouldBlock {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkHandshake is both ends of a full handshake, no sockets: what the engine's own work comes on top of.
func BenchmarkHandshake(b *testing.B) {
	for _, o := range []WorkerOptions{{Count: 1}, {Count: 1, Nice: 10}} {
		b.Run(fmt.Sprintf("nice %d", o.Nice), func(b *testing.B) {
			ca := lbtest.NewCA(b)
			ws := newWorkers(b, o)
			server, client := serverConfig(ca, "a.test"), clientConfig(ca, "a.test")
			b.ReportAllocs()
			for b.Loop() {
				s, c := newPair(ws, server, client)
				if err := shake(s, c, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdle reports what an open server's end holds that has received nothing, and one that has received bulk, with
// and without borrowing.
func BenchmarkIdle(b *testing.B) {
	for _, borrow := range []bool{true, false} {
		for _, bulk := range []int{0, 1 << 20} {
			b.Run(fmt.Sprintf("borrowing %v, %d bytes", borrow, bulk), func(b *testing.B) {
				if !borrow {
					withoutBorrowing(b)
				}
				benchmarkIdle(b, bulk)
			})
		}
	}
}

func benchmarkIdle(b *testing.B, bulk int) {
	ca := lbtest.NewCA(b)
	ws := newWorkers(b, WorkerOptions{Count: 1})
	server, client := serverConfig(ca, "a.test"), clientConfig(ca, "a.test")
	sc, plain := NewScratch(ScratchBytes), make([]byte, bulk+MinRead)
	const n = 500
	for b.Loop() {
		before := inUse()
		var kept [n]*Conn
		for i := range kept {
			s, c := newPair(ws, server, client)
			if err := shake(s, c, nil); err != nil {
				b.Fatal(err)
			}
			s.in, _ = c.Write(plain[:bulk], s.in)
			for got := 0; ; {
				m, _, err := s.Read(sc, plain, nil)
				if got += m; err == ErrWouldBlock {
					if got != bulk {
						b.Fatal(got)
					}
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
			kept[i] = s.Conn
			s.in, kept[i].source, kept[i].notify = nil, nil, nil // the test's own
		}
		b.ReportMetric((float64(inUse())-float64(before))/n, "B/server")
		runtime.KeepAlive(&kept)
	}
}
