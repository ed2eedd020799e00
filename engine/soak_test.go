package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

var (
	soakFor  = flag.Duration("soak", 3*time.Second, "how long TestEverythingAtOnce has everything happen")
	soakSeed = flag.Uint64("soak.seed", 0, "of TestEverythingAtOnce; 0: another each time")
)

// soak is what TestEverythingAtOnce plays with.
type soak struct {
	*rig
	seed     uint64
	tcp, udp []string // backends; one of tcp refuses
	front    *config.FrontendTLS
	client   *tls.Config
	at       map[string]string // where frontends listen, with ports that stay
	served   atomic.Int64
}

// TestEverythingAtOnce: clients of all kinds, while everything that an operator may change changes. Who is answered gets exactly
// his own bytes, and when all have gone, nothing is left of anybody.
func TestEverythingAtOnce(t *testing.T) {
	k := &soak{seed: *soakSeed, at: map[string]string{}}
	if k.seed == 0 {
		k.seed = rand.Uint64()
	}
	t.Logf("-soak.seed %d", k.seed)
	random := rand.New(rand.NewPCG(k.seed, 0))
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"front.test"}})
	k.client = &tls.Config{RootCAs: ca.Pool, ServerName: "front.test"}
	k.front = &config.FrontendTLS{HandshakeTimeout: time.Minute, SessionTickets: true,
		Certificates: []*config.CertificateFiles{{Cert: lbtest.Files(t, "front.pem", cert, key)}}}
	for range 3 {
		k.tcp, k.udp = append(k.tcp, lbtest.Echo(t)), append(k.udp, lbtest.EchoDatagrams(t))
	}
	k.tcp = append(k.tcp, lbtest.Refused(t))
	for _, name := range []string{"f", "tls", "u", "proxied"} {
		k.at[name] = freePort(t).IP.String()
	}
	k.rig = newRigOf(t, 2+random.IntN(3), nil, k.edit(random, true))

	stop := make(chan struct{})
	var clients, operators sync.WaitGroup
	for i := range 24 {
		own := rand.New(rand.NewPCG(k.seed, uint64(i+1)))
		clients.Go(func() { k.until(stop, func() { k.connect(own) }) })
	}
	for i := range 8 {
		own := rand.New(rand.NewPCG(k.seed, uint64(i+100)))
		clients.Go(func() { k.until(stop, func() { k.send(own) }) })
	}
	for i, what := range []func(*rand.Rand){k.reload, k.discover, k.order, k.checks, k.killOrList} {
		own := rand.New(rand.NewPCG(k.seed, uint64(i+200)))
		operators.Go(func() {
			k.until(stop, func() {
				what(own)
				time.Sleep(time.Duration(own.IntN(20)) * time.Millisecond) // a pace, and nothing that is waited for
			})
		})
	}
	time.AfterFunc(*soakFor, func() { close(stop) })
	clients.Wait()
	operators.Wait()
	if k.served.Load() < 100 {
		t.Errorf("only %d were served", k.served.Load())
	}
	t.Logf("%d served", k.served.Load())
	k.wantNothingLeft()
}

func (k *soak) until(stop chan struct{}, do func()) {
	for {
		select {
		case <-stop:
			return
		default:
			do()
		}
	}
}

// edit makes a configuration of random limits; whole is one with every frontend and pool.
func (k *soak) edit(r *rand.Rand, whole bool) func(*config.Config) {
	maybe := func(n int) int { return n * r.IntN(2) }
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	pool := func(p *config.Pool, backends []string) {
		p.Policy = pick("random", "roundrobin", "leastconn", "p2c", "iphash", "maglev", "leasttime")
		p.Backends = nil
		for _, b := range backendConfigs(backends) {
			if r.IntN(4) > 0 {
				b.MaxConnections = maybe(1 + r.IntN(8))
				b.Weight, b.Priority = r.IntN(4), r.IntN(2)
				p.Backends = append(p.Backends, b)
			}
		}
		p.MaxConnections = maybe(1 + r.IntN(20))
		p.Health, p.PanicThreshold = &config.Health{Kind: "tcp", Initial: "up"}, r.IntN(101)
		p.OnDown, p.OnRemoved, p.OnMaintenance = pick("keep", "drain", "cut"), pick("keep", "drain", "cut"), pick("keep", "drain", "cut")
		p.DrainTimeout, p.DrainRate = time.Duration(100+r.IntN(400))*time.Millisecond, maybe(50)
		if r.IntN(2) == 0 {
			p.Persistence = &config.Persistence{Key: "source", TTL: time.Second, MaxEntries: 1 + r.IntN(5)}
		}
		if r.IntN(2) == 0 {
			p.Outliers = &config.Outliers{Failures: 1 + r.IntN(3), Ejection: 100 * time.Millisecond, MaxEjection: 200 * time.Millisecond, MaxEjected: 50}
		}
		if r.IntN(3) > 0 {
			p.Queue = &config.Queue{Size: 1 + r.IntN(20), Timeout: time.Duration(20+r.IntN(300)) * time.Millisecond, WhenDown: r.IntN(2) == 0}
		}
		if r.IntN(2) == 0 {
			discovered(&config.Config{Pools: []*config.Pool{p}})
		}
	}
	return func(c *config.Config) {
		base := func(name string) *config.Frontend {
			f := *c.Frontends[0]
			f.Name, f.Addresses = name, backendAddresses(k.at[name])
			f.SourcePrefixV4, f.SourcePrefixV6 = 32, 64
			f.MaxConnections = maybe(5 + r.IntN(30))
			f.MaxConnectionsPerSource = maybe(5 + r.IntN(30))
			if r.IntN(2) == 0 {
				f.Bandwidth, f.BandwidthPerSource, f.BandwidthPerSession = config.Size(maybe(20<<20)), config.Size(maybe(10<<20)), config.Size(maybe(5<<20))
			}
			return &f
		}
		f, secure := base("f"), base("tls")
		secure.TLS = k.front
		q := *c.Pools[0]
		q.Name = "q"
		pool(c.Pools[0], k.tcp)
		pool(&q, k.udp)
		q.Queue = nil
		frontends := []*config.Frontend{f, secure}
		for _, name := range []string{"u", "proxied"} {
			scratch := &config.Config{Frontends: []*config.Frontend{base(name)}}
			asUDP(nil)(scratch)
			u := scratch.Frontends[0]
			u.Pool, u.MaxConnections, u.MaxConnectionsPerSource = "q", 0, 0
			u.UDP.IdleTimeout, u.UDP.UnrepliedTimeout = 300*time.Millisecond, 200*time.Millisecond
			u.UDP.MaxFlowsPerSource = maybe(1 + r.IntN(30))
			u.UDP.OnBackendGone = pick("move", "keep", "cut")
			if name == "proxied" {
				u.ProxyProtocol = config.ProxyProtocol{Accept: "required", Trusted: everybody}
			}
			frontends = append(frontends, u)
		}
		pools := []*config.Pool{c.Pools[0], &q}
		if !whole {
			if r.IntN(6) == 0 { // nobody is served by it for a while
				pools = pools[1:]
				f.Pool, secure.Pool = "", ""
			}
			if n := r.IntN(12); n < len(frontends) {
				frontends = append(frontends[:n:n], frontends[n+1:]...)
			}
		}
		c.Frontends, c.Pools = frontends, pools
		c.Engine.Splice = r.IntN(2) == 0
	}
}

func backendAddresses(at string) (all []config.Address) {
	return append(all, backendConfigs([]string{at})[0].Address)
}

// connect is one TCP client. Whatever it hears is what it said; it may be turned away or cut off at any time.
func (k *soak) connect(r *rand.Rand) {
	name := []string{"f", "f", "tls"}[r.IntN(3)]
	raw, err := net.DialTimeout("tcp", k.at[name], 5*time.Second)
	if err != nil {
		time.Sleep(time.Millisecond) // the frontend is gone for a while
		return
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
	var c duplex = raw.(*net.TCPConn)
	if name == "tls" {
		c = tls.Client(raw, k.client)
	}
	n, how := int64(1+r.IntN(1<<uint(r.IntN(19)))), r.IntN(5)
	seed := r.Uint64()
	said := make(chan struct{})
	go func() {
		defer close(said)
		if _, err := io.Copy(c, lbtest.NewStream(seed, n)); err == nil && how != 1 {
			_ = c.CloseWrite()
		}
	}()
	defer func() {
		raw.Close()
		<-said
	}()
	want, got := lbtest.NewStream(seed, n), int64(0)
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	most := n
	if how == 2 {
		most = n / 2 // and then it resets
	}
	for got < most {
		size := int64(len(a))
		if how == 3 { // reads slowly
			size = 4 << 10
			time.Sleep(time.Millisecond)
		}
		m, err := c.Read(a[:min(size, n-got)])
		_, _ = io.ReadFull(want, b[:m])
		if !bytes.Equal(a[:m], b[:m]) {
			k.t.Errorf("seed %d: %s client got others' bytes after %d of %d", k.seed, name, got, n)
			return
		}
		got += int64(m)
		if err != nil {
			return
		}
	}
	if how == 2 {
		_ = raw.(*net.TCPConn).SetLinger(0)
		return
	}
	k.served.Add(1)
}

// send is one UDP client: what it hears is of itself.
func (k *soak) send(r *rand.Rand) {
	name := []string{"u", "proxied"}[r.IntN(2)]
	c, err := net.Dial("udp", k.at[name])
	if err != nil {
		return
	}
	defer c.Close()
	said := map[string]bool{}
	b := make([]byte, 2048)
	for i := range 1 + r.IntN(10) {
		text := fmt.Sprintf("%d of %s", i, c.LocalAddr())
		said[text] = true
		if name == "proxied" {
			text = toldDatagram(fmt.Sprintf("198.51.100.%d:%d", r.IntN(3), 1+r.IntN(3)), text)
		}
		_, _ = c.Write([]byte(text))
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // it may be dropped
		n, err := c.Read(b)
		if err != nil {
			continue
		}
		if !said[string(b[:n])] {
			k.t.Errorf("seed %d: a client at %s got %q", k.seed, c.LocalAddr(), b[:n])
		}
		k.served.Add(1)
	}
}

func (k *soak) reload(r *rand.Rand) {
	if _, err := k.d.Apply(testConfig(nil, k.edit(r, false))); err != nil {
		k.t.Errorf("seed %d: %v", k.seed, err)
	}
}

func (k *soak) discover(r *rand.Rand) {
	all := map[string][]string{"p": k.tcp, "q": k.udp}
	for pool, of := range all {
		k.d.SetBackends(pool, backendConfigs(of[:r.IntN(len(of)+1)]))
	}
}

// someone picks a pool and one of its members.
func (k *soak) someone(r *rand.Rand) *balancer.Member {
	pools := k.d.Snapshot().Pools
	if p := pools[r.IntN(len(pools))]; len(p.Members) > 0 {
		return p.Members[r.IntN(len(p.Members))]
	}
	return nil
}

func (k *soak) order(r *rand.Rand) {
	m := k.someone(r)
	if m == nil {
		return
	}
	// It may have gone meanwhile: then there is nothing to order.
	switch r.IntN(4) {
	case 0:
		_ = k.d.SetWeight(m.Pool, m.Name, r.IntN(3), "")
	case 1:
		_ = k.d.ResetWeight(m.Pool, m.Name, "")
	default:
		_ = k.d.Order(m.Pool, m.Name, balancer.Order(r.IntN(3)), "")
	}
}

func (k *soak) checks(r *rand.Rand) {
	if m := k.someone(r); m != nil {
		if b := k.d.SetHealth(m.Pool, m.Address, r.IntN(3) > 0); b != nil {
			k.e.BackendChanged(b)
		}
	}
}

func (k *soak) killOrList(r *rand.Rand) {
	filter := SessionFilter{Frontend: []string{"f", "tls", "u", "proxied"}[r.IntN(4)]}
	if r.IntN(4) > 0 {
		if _, _, err := k.e.ListSessions(context.Background(), filter, "", 1+r.IntN(100)); err != nil {
			k.t.Errorf("seed %d: %v", k.seed, err)
		}
	} else if _, err := k.e.KillSessions(context.Background(), filter); err != nil {
		k.t.Errorf("seed %d: %v", k.seed, err)
	}
}

// wantNothingLeft waits until all is as it was before the first client.
func (k *soak) wantNothingLeft() {
	t := k.t
	t.Helper()
	left := ""
	defer func() {
		if t.Failed() {
			t.Logf("-soak.seed %d; left: %s", k.seed, left)
		}
	}()
	lbtest.Eventually(t, "nothing is left", func() bool {
		left = ""
		note := func(what string, n int64) {
			if n != 0 {
				left += fmt.Sprintf("%s %d, ", what, n)
			}
		}
		sessions, _ := k.e.Sessions()
		flows, _ := k.e.Flows()
		note("sessions", sessions)
		note("flows", flows)
		note("sockets of flows", k.e.sockets.Load())
		note("leaving listeners", k.e.leaving.Load())
		note("retired", int64(len(k.d.Retired())))
		snap := k.d.Snapshot()
		for _, f := range snap.Frontends {
			note("active of frontend "+f.Config.Name, f.Live.Active())
			if g := guardOf(f); g != nil && g.sources != nil {
				note("sources of "+f.Config.Name, int64(g.sources.tracked()))
			}
		}
		for _, p := range snap.Pools {
			note("active of pool "+p.Config.Name, p.Active())
			if q := p.Queue(); q != nil {
				note("waiting", int64(q.Waiting()))
			}
			for _, m := range p.Members {
				note("active of "+m.Name, m.Active())
			}
		}
		for _, sh := range k.e.shards {
			sh.loop.Call(func() {
				note("open", int64(sh.open))
				note("paces", int64(len(sh.paces)))
				note("starved", int64(sh.starved))
				for m := sh.meters; m != nil; m = m.next {
					if m.s != nil || m.timer.Pending() {
						note("meter in use on the free list", 1)
					}
				}
			})
		}
		return left == ""
	})
}
