package discovery

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"awe4lb/internal/lbtest"
)

// nameserver is a DNS server by UDP and TCP that answers as its test says.
type nameserver struct {
	address string
	udp     atomic.Int64
	tcp     atomic.Int64
	mu      sync.Mutex
	handle  func(q, m *dns.Msg, udp bool) bool
}

func serveDNS(t *testing.T) *nameserver {
	t.Helper()
	n := &nameserver{}
	for try := 0; ; try++ { // a port that is free for both
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil && try < 20 {
			l.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n.address = l.Addr().String()
		for _, sv := range []*dns.Server{{Listener: l, Handler: n}, {PacketConn: p, Handler: n}} {
			started := make(chan struct{})
			sv.NotifyStartedFunc = func() { close(started) }
			done := make(chan struct{})
			go func() { _ = sv.ActivateAndServe(); close(done) }()
			<-started
			t.Cleanup(func() { _ = sv.Shutdown(); <-done })
		}
		return n
	}
}

func (n *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	if udp {
		n.udp.Add(1)
	} else {
		n.tcp.Add(1)
	}
	m := new(dns.Msg)
	m.SetReply(q)
	n.mu.Lock()
	ok := n.handle(q, m, udp)
	n.mu.Unlock()
	if ok {
		_ = w.WriteMsg(m)
	}
}

func (n *nameserver) set(f func(q, m *dns.Msg, udp bool) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handle = f
}

// zone answers from records as a resolver would, and NXDOMAIN for names that have none.
func (n *nameserver) zone(t *testing.T, lines ...string) {
	t.Helper()
	var all []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil || rr == nil {
			t.Fatal(l, err)
		}
		all = append(all, rr)
	}
	soa, _ := dns.NewRR("internal. 60 IN SOA ns.internal. a.internal. 1 2 3 4 7")
	n.set(func(q, m *dns.Msg, _ bool) bool {
		name, known := q.Question[0].Name, false
		for again := true; again; {
			again = false
			for _, rr := range all {
				if !strings.EqualFold(rr.Header().Name, name) {
					continue
				}
				known = true
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				} else if c, ok := rr.(*dns.CNAME); ok {
					m.Answer = append(m.Answer, rr)
					name, again = c.Target, true
					break
				}
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		if len(m.Answer) == 0 {
			m.Ns = append(m.Ns, soa)
		}
		return true
	})
}

func newDNS(t *testing.T, o DNSOptions) Source {
	t.Helper()
	if o.Port == 0 {
		o.Port = 80
	}
	s, err := NewDNS(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// within bounds a fetch; servers share it.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantDNS(t *testing.T, s Source, want string, ttl time.Duration) {
	t.Helper()
	list, err := s.Fetch(within(t, 10*time.Second))
	if got := show(List{Backends: normalise(list.Backends), Skipped: list.Skipped, Why: list.Why}); err != nil || got != want || list.TTL != ttl {
		t.Errorf("got %s for %v, %v; want %s for %v", got, list.TTL, err, want, ttl)
	}
}

func wantDNSError(t *testing.T, s Source, reason, want string) {
	t.Helper()
	list, err := s.Fetch(within(t, 10*time.Second))
	if err == nil || ReasonOf(err) != reason || !strings.Contains(err.Error(), want) {
		t.Errorf("got %s %v (%s); want %s: %s", show(list), err, ReasonOf(err), reason, want)
	}
}

func TestDNS(t *testing.T) {
	lbtest.CheckLeaks(t)
	n := serveDNS(t)
	n.zone(t,
		"web.internal. 30 IN A 10.0.0.2", "web.internal. 20 IN A 10.0.0.1", "web.internal. 60 IN AAAA fd00::1",
		"four.internal. 1 IN A 10.0.0.4", "long.internal. 86400 IN A 10.0.0.5",
		"alias.internal. 8 IN CNAME Other.internal.", "other.internal. 9 IN CNAME web.internal.",
		"text.internal. 60 IN TXT nothing", "bad.internal. 60 IN A 0.0.0.0",
		"now.internal. 0 IN A 10.0.0.6", "now.internal. 60 IN AAAA fd00::6")
	servers := []string{n.address}
	wantDNS(t, newDNS(t, DNSOptions{Name: "web.internal", Servers: servers}), "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0, [fd00::1]:80 1/0/0", 20*time.Second)
	wantDNS(t, newDNS(t, DNSOptions{Name: "WEB.internal.", Servers: servers, Family: IPv4, Port: 81}), "10.0.0.1:81 1/0/0, 10.0.0.2:81 1/0/0", 20*time.Second)
	wantDNS(t, newDNS(t, DNSOptions{Name: "web.internal", Servers: servers, Family: IPv6}), "[fd00::1]:80 1/0/0", 60*time.Second)
	// Times have a floor and a ceiling, and aliases count.
	wantDNS(t, newDNS(t, DNSOptions{Name: "four.internal", Servers: servers}), "10.0.0.4:80 1/0/0", 5*time.Second)
	wantDNS(t, newDNS(t, DNSOptions{Name: "four.internal", Servers: servers, MinTTL: time.Second, Family: IPv4}), "10.0.0.4:80 1/0/0", time.Second)
	wantDNS(t, newDNS(t, DNSOptions{Name: "now.internal", Servers: servers}), "10.0.0.6:80 1/0/0, [fd00::6]:80 1/0/0", 5*time.Second)
	wantDNS(t, newDNS(t, DNSOptions{Name: "long.internal", Servers: servers, Family: IPv4}), "10.0.0.5:80 1/0/0", 5*time.Minute)
	wantDNS(t, newDNS(t, DNSOptions{Name: "alias.internal", Servers: servers, Family: IPv4}), "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0", 8*time.Second)
	// No addresses, no name, nonsense: three things.
	wantDNS(t, newDNS(t, DNSOptions{Name: "text.internal", Servers: servers}), "", 7*time.Second)
	wantDNSError(t, newDNS(t, DNSOptions{Name: "missing.internal", Servers: servers}), ReasonNXDomain, "dns: missing.internal A")
	wantDNSError(t, newDNS(t, DNSOptions{Name: "bad.internal", Servers: servers}), ReasonDecode, "can be connected to")
	if n.tcp.Load() != 0 {
		t.Error("asked by TCP")
	}
}

func TestDNSTruncated(t *testing.T) {
	lbtest.CheckLeaks(t)
	n := serveDNS(t)
	n.set(func(q, m *dns.Msg, udp bool) bool {
		for i := range 2000 {
			rr, _ := dns.NewRR(fmt.Sprintf("web.internal. 60 IN A 10.0.%d.%d", 1+i/200, 1+i%200))
			m.Answer = append(m.Answer, rr)
		}
		if udp {
			m.Truncate(dnsUDP)
		}
		return true
	})
	list, err := newDNS(t, DNSOptions{Name: "web.internal", Servers: []string{n.address}, Family: IPv4}).Fetch(within(t, 20*time.Second))
	if err != nil || len(list.Backends) != 2000 || n.tcp.Load() != 1 {
		t.Errorf("%d backends, %d by TCP, %v", len(list.Backends), n.tcp.Load(), err)
	}
	// Cut by both: half a list is none.
	n.set(func(q, m *dns.Msg, udp bool) bool { m.Truncated = true; return true })
	wantDNSError(t, newDNS(t, DNSOptions{Name: "web.internal", Servers: []string{n.address}, Family: IPv4}), ReasonServFail, "cut short by TCP too")
}

func TestDNSServersThatFail(t *testing.T) {
	lbtest.CheckLeaks(t)
	bad, good := serveDNS(t), serveDNS(t)
	good.zone(t, "web.internal. 60 IN A 10.0.0.1")
	both := newDNS(t, DNSOptions{Name: "web.internal", Servers: []string{bad.address, good.address}, Family: IPv4})
	only := newDNS(t, DNSOptions{Name: "web.internal", Servers: []string{bad.address}, Family: IPv4})
	for _, code := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError} {
		bad.set(func(q, m *dns.Msg, _ bool) bool { m.Rcode = code; return true })
		wantDNS(t, both, "10.0.0.1:80 1/0/0", time.Minute)
		wantDNSError(t, only, ReasonServFail, bad.address+": web.internal A: "+dns.RcodeToString[code])
	}
	// One of two families that fails fails both.
	bad.set(func(q, m *dns.Msg, _ bool) bool {
		if q.Question[0].Qtype == dns.TypeAAAA {
			m.Rcode = dns.RcodeServerFailure
		} else {
			rr, _ := dns.NewRR("web.internal. 60 IN A 10.0.0.1")
			m.Answer = append(m.Answer, rr)
		}
		return true
	})
	wantDNSError(t, newDNS(t, DNSOptions{Name: "web.internal", Servers: []string{bad.address}}), ReasonServFail, "AAAA: SERVFAIL")
	// A server that only knows whom to ask.
	bad.set(func(q, m *dns.Msg, _ bool) bool {
		rr, _ := dns.NewRR("internal. 60 IN NS ns.internal.")
		m.Ns = append(m.Ns, rr)
		return true
	})
	wantDNS(t, both, "10.0.0.1:80 1/0/0", time.Minute)
	wantDNSError(t, only, ReasonServFail, "a referral")
	// One without EDNS.
	bad.set(func(q, m *dns.Msg, _ bool) bool {
		if q.IsEdns0() != nil {
			m.Rcode = dns.RcodeFormatError
			m.Question = nil
			return true
		}
		rr, _ := dns.NewRR("web.internal. 60 IN A 10.0.0.7")
		m.Answer = append(m.Answer, rr)
		return true
	})
	wantDNS(t, only, "10.0.0.7:80 1/0/0", time.Minute)
	// Answers to something else are not listened to, and then it is silence: the next one is asked.
	for _, spoil := range []func(m *dns.Msg){
		func(m *dns.Msg) { m.Id++ },
		func(m *dns.Msg) { m.Question[0].Name = "else.internal." },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX },
		func(m *dns.Msg) { m.Response = false },
	} {
		bad.set(func(q, m *dns.Msg, _ bool) bool {
			rr, _ := dns.NewRR("web.internal. 60 IN A 10.6.6.6")
			m.Answer = append(m.Answer, rr)
			m.Question = append([]dns.Question(nil), m.Question...)
			spoil(m)
			return true
		})
		list, err := both.Fetch(within(t, time.Second))
		if err != nil || show(list) != "10.0.0.1:80 1/0/0" {
			t.Errorf("got %s %v", show(list), err)
		}
	}
	// Nobody says anything; nobody is there.
	bad.set(func(q, m *dns.Msg, _ bool) bool { return false })
	if _, err := only.Fetch(within(t, 100*time.Millisecond)); ReasonOf(err) != ReasonTimeout {
		t.Error(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	if _, err := only.Fetch(stopped); err == nil || time.Since(begin) > 4*time.Second {
		t.Error(err, time.Since(begin))
	}
}

func TestDNSOfTheSystem(t *testing.T) {
	lbtest.CheckLeaks(t)
	n := serveDNS(t)
	n.zone(t, "web.internal. 60 IN A 10.0.0.1", "web.internal.search.test. 60 IN A 10.6.6.6")
	ip, port, _ := net.SplitHostPort(n.address)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, "nameserver "+ip+"\nsearch search.test\noptions ndots:5\n")
	s := newDNS(t, DNSOptions{Name: "web.internal", Family: IPv4}).(*host)
	s.resolver.conf = conf
	servers, err := s.resolver.list()
	if err != nil || fmt.Sprint(servers) != "["+ip+":53]" {
		t.Fatal(servers, err)
	}
	a, err := parseServer(n.address, port)
	if err != nil {
		t.Fatal(err)
	}
	s.resolver.servers = append(s.resolver.servers, a)
	wantDNS(t, s, "10.0.0.1:80 1/0/0", time.Minute)

	s.resolver.servers = nil
	write(t, conf, "search internal\n")
	wantDNSError(t, s, ReasonOther, "names no server")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	wantDNSError(t, s, ReasonOther, "no such file")
}

func TestDNSOptionsAreChecked(t *testing.T) {
	for _, o := range []DNSOptions{
		{}, {Name: "web.internal"}, {Name: "10.0.0.1", Port: 80}, {Name: "a b", Port: 80}, {Name: "a..b", Port: 80}, {Name: ".", Port: 80},
		{Name: strings.Repeat("a", 64) + ".test", Port: 80}, {Name: "a", Port: 80, Family: 3},
		{Name: "a", Port: 80, Servers: []string{"dns.internal"}}, {Name: "a", Port: 80, Servers: []string{"10.0.0.1:0"}},
		{Name: "a", Port: 80, MinTTL: time.Minute, MaxTTL: time.Second},
	} {
		if _, err := NewDNS(o); err == nil || !strings.HasPrefix(err.Error(), "dns: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, server := range []string{"10.0.0.53", "10.0.0.53:5353", "fd00::53", "[fd00::53]:5353"} {
		if _, err := NewDNS(DNSOptions{Name: "a", Port: 80, Servers: []string{server}}); err != nil {
			t.Error(err)
		}
	}
}

// FuzzDNSAnswer: whatever a server sends, reading it ends, and gives nothing that is not a backend.
func FuzzDNSAnswer(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("a.internal.", dns.TypeA)
	m.Response = true
	for _, l := range []string{"a.internal. 5 IN CNAME b.internal.", "b.internal. 5 IN CNAME a.internal.", "a.internal. 5 IN A 10.0.0.1"} {
		rr, _ := dns.NewRR(l)
		m.Answer = append(m.Answer, rr)
	}
	b, _ := m.Pack()
	f.Add(b)
	r := &resolver{}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			_ = r.judge(m, "a.internal.", kind)
			found, ttl := records(m, "a.internal.", kind)
			if ttl < 0 || ttl > 1<<32*time.Second {
				t.Error(ttl)
			}
			for _, rr := range found {
				if ip, ok := addressIn(rr); ok {
					_, _ = addressOf(ip, 80)
				}
			}
		}
	})
}
