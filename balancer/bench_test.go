package balancer

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"awe4lb/config"
)

// spread makes a pool of n backends with weights 1, 2 and 3, and clients on them.
func spread(policy string, n int) *Pool {
	spec := make([]string, n)
	for i := range spec {
		spec[i] = fmt.Sprint(1 + i%3)
	}
	p := built(pool(policy, spec...))
	for i := range 5 * n {
		p.Pick(clientKey(i), nil)
	}
	return p
}

var policies = []string{"random", "roundrobin", "leastconn", "leasttime", "leastbandwidth", "p2c", "iphash", "maglev"}

// BenchmarkPick: sessions come and stay, so that this is the cost of a pick alone.
func BenchmarkPick(b *testing.B) {
	benchmarkPick(b, func(*Backend) {})
}

// BenchmarkPickRelease: a session comes and goes.
func BenchmarkPickRelease(b *testing.B) {
	benchmarkPick(b, (*Backend).Release)
}

func benchmarkPick(b *testing.B, then func(*Backend)) {
	for _, policy := range policies {
		for _, n := range []int{3, 100} {
			p := spread(policy, n)
			for _, m := range p.Members {
				m.Connected(1000)
			}
			b.Run(fmt.Sprintf("%s/%d", policy, n), func(b *testing.B) {
				b.ReportAllocs()
				key := uint64(0)
				for b.Loop() {
					key += 0x9e3779b97f4a7c15
					then(p.Pick(key, nil))
				}
			})
		}
	}
}

// BenchmarkPickMixed: sessions come and go at random, some 500 at once, so that leastconn meets both its quick and its slow
// ways.
func BenchmarkPickMixed(b *testing.B) {
	for _, policy := range []string{"random", "leastconn", "p2c"} {
		p := spread(policy, 100)
		r := rand.New(rand.NewPCG(1, 2))
		order := make([]uint16, 1<<16)
		for i := range order {
			order[i] = uint16(r.IntN(500))
		}
		held := make([]*Backend, 500)
		b.Run(policy, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				// Half of the sessions that come find their place taken, whose session then goes.
				at := order[i&(1<<16-1)]
				i++
				if held[at] != nil {
					held[at].Release()
					held[at] = nil
				} else {
					held[at] = p.Pick(0, nil)
				}
			}
		})
	}
}

// BenchmarkPickParallel: all shards at once.
func BenchmarkPickParallel(b *testing.B) {
	for _, policy := range policies {
		p := spread(policy, 100)
		b.Run(policy, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				key := rand.Uint64()
				for pb.Next() {
					key += 0x9e3779b97f4a7c15
					p.Pick(key, nil).Release()
				}
			})
		})
	}
}

// BenchmarkKey: what of a client a pool goes by.
func BenchmarkKey(b *testing.B) {
	client := clientAt(7)
	for _, by := range []string{"source", "source_port", "prefix", "sni"} {
		cfg := pool("maglev", "1")
		cfg.HashKey, cfg.HashPrefixV4 = by, 24
		p := built(cfg)
		name := []byte("www.shop.example.com")
		b.Run(by, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Key(client, name)
			}
		})
	}
}

// BenchmarkBuild1000 makes a whole snapshot with a pool of a thousand.
func BenchmarkBuild1000(b *testing.B) {
	spec := make([]string, 1000)
	for i := range spec {
		spec[i] = fmt.Sprint(1 + i%10)
	}
	for _, policy := range policies {
		cfg := &config.Config{Pools: []*config.Pool{pool(policy, spec...)}}
		b.Run(policy, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				build(cfg, 1, identities{})
			}
		})
	}
}
