package engine

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
	"awe4lb/tlsbridge/certs"
)

// rig is an engine under test with its director.
type rig struct {
	t testing.TB
	d *balancer.Director
	e *Engine

	mu         sync.Mutex
	ended      []Record
	challenges map[string]string
}

func (r *rig) challenge(token string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, ok := r.challenges[token]
	return text, ok
}

// newRig starts an engine with two shards and the configuration that edit makes of the defaults: one frontend, f, on a
// free port of 127.0.0.1, and one pool, p, of the backends given. The test fails if it leaves anything behind.
func newRig(t testing.TB, backends []string, edit func(*config.Config)) *rig {
	t.Helper()
	return newRigOf(t, 2, backends, edit)
}

// newRigOf is newRig with a number of shards.
func newRigOf(t testing.TB, shards int, backends []string, edit func(*config.Config)) *rig {
	t.Helper()
	lbtest.CheckLeaks(t)
	r := &rig{t: t, d: balancer.NewDirector()}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	keeper := certs.New(log, nil)
	t.Cleanup(keeper.Close)
	var err error
	r.e, err = New(r.d, Options{Shards: shards, ReadBuffer: 256 << 10, Log: log,
		Access: r.record, Flush: func() {}, Certificates: keeper, Challenge: r.challenge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.e.Close)
	r.d.Drive(r.e)
	r.e.SetAccess(true)
	r.apply(testConfig(backends, edit))
	return r
}

func (r *rig) record(rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, *rec)
}

func (r *rig) apply(c *config.Config) *balancer.Report {
	r.t.Helper()
	report, err := r.d.Apply(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

func testConfig(backends []string, edit func(*config.Config)) *config.Config {
	f := &config.Frontend{Name: "f", Pool: "p", Protocol: "tcp", IdleTimeout: time.Minute, HalfCloseTimeout: time.Minute,
		TCP: config.TCP{NoDelay: true}, UnixMode: 0o660, HelloTimeout: time.Minute, UnknownName: "default", STARTTLS: "none",
		Addresses: []config.Address{{IP: netip.MustParseAddrPort("127.0.0.1:0")}}}
	p := &config.Pool{Name: "p", Policy: "roundrobin", ConnectTimeout: time.Second, ConnectAttempts: 3,
		TCP: config.TCP{NoDelay: true}, Backends: backendConfigs(backends)}
	c := &config.Config{Frontends: []*config.Frontend{f}, Pools: []*config.Pool{p}}
	c.Engine.Splice, c.Engine.SplicePipes = true, 16
	if edit != nil {
		edit(c)
	}
	return c
}

func backendConfigs(addresses []string) []*config.Backend {
	var bs []*config.Backend
	for _, b := range addresses {
		a := config.Address{}
		if path, ok := strings.CutPrefix(b, "unix:"); ok {
			a.Path = path
		} else {
			a.IP = netip.MustParseAddrPort(b)
		}
		bs = append(bs, &config.Backend{Address: a, Weight: 1})
	}
	return bs
}

// address returns where the first frontend listens.
func (r *rig) address() string { return r.e.Listeners()[0].Address.String() }

// dial connects a client. Everything it does has to be done within a minute.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.address(), 5*time.Second)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// wantEnds waits until the sessions that have ended, in any order, ended for exactly these reasons, and returns the
// records.
func (r *rig) wantEnds(want ...Reason) []Record {
	r.t.Helper()
	var got []Record
	lbtest.Eventually(r.t, "sessions ended", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = append([]Record(nil), r.ended...)
		return len(got) >= len(want)
	})
	count := map[Reason]int{}
	for _, rec := range got {
		count[rec.Reason]++
	}
	for _, reason := range want {
		count[reason]--
	}
	for reason, n := range count {
		if n != 0 {
			r.t.Fatalf("%+d of reason %v; got %+v", n, reason, got)
		}
	}
	return got
}

// say writes s and fails the test if that fails.
func say(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// hear reads exactly len(want) bytes and compares.
func hear(t testing.TB, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b[:n], err, want)
	}
}

// hearEnd reads to the end and compares.
func hearEnd(t testing.TB, c io.Reader, want string) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q and the end", b, err, want)
	}
}
