package discovery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"awe4lb/internal/lbtest"
)

func newSRV(t *testing.T, o SRVOptions) Source {
	t.Helper()
	s, err := NewSRV(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSRV(t *testing.T) {
	lbtest.CheckLeaks(t)
	n := serveDNS(t)
	n.zone(t,
		"_web._tcp.internal. 60 IN SRV 1 10 8080 A.internal.", "_web._tcp.internal. 60 IN SRV 1 0 8081 a.internal.",
		"_web._tcp.internal. 60 IN SRV 2 5 8080 b.internal.",
		"a.internal. 30 IN A 10.0.0.1", "a.internal. 40 IN A 10.0.0.2", "b.internal. 20 IN AAAA fd00::2",
		"_alias._tcp.internal. 10 IN CNAME _web._tcp.internal.",
		"_none._tcp.internal. 60 IN SRV 0 0 0 .",
		"_some._tcp.internal. 60 IN SRV 0 0 80 gone.internal.", "_some._tcp.internal. 60 IN SRV 0 0 80 a.internal.",
		"_gone._tcp.internal. 60 IN SRV 0 0 80 gone.internal.",
		"_zero._tcp.internal. 60 IN SRV 0 0 0 a.internal.",
		"web.service.consul. 60 IN SRV 1 1 80 a.internal.",
		"_text._tcp.internal. 60 IN TXT x",
		"_twice._tcp.internal. 60 IN SRV 5 0 80 c.internal.", "_twice._tcp.internal. 60 IN SRV 1 0 80 a.internal.", "c.internal. 60 IN A 10.0.0.1")
	f := func(name, want string, ttl time.Duration) {
		t.Helper()
		wantDNS(t, newSRV(t, SRVOptions{Name: name, Servers: []string{n.address}}), want, ttl)
	}
	web := "10.0.0.1:8080 10/1/0 a.internal, 10.0.0.1:8081 1/1/0 a.internal, 10.0.0.2:8080 10/1/0 a.internal, " +
		"10.0.0.2:8081 1/1/0 a.internal, [fd00::2]:8080 5/2/0 b.internal"
	f("_web._tcp.internal", web, 7*time.Second) // 7 s is how long a.internal has no AAAA
	f("_alias._tcp.internal.", web, 7*time.Second)
	f("web.service.consul", "10.0.0.1:80 1/1/0 a.internal, 10.0.0.2:80 1/1/0 a.internal", 7*time.Second)
	f("_none._tcp.internal", "", time.Minute)
	f("_text._tcp.internal", "", 7*time.Second)
	f("_some._tcp.internal", "10.0.0.1:80 1/0/0 a.internal, 10.0.0.2:80 1/0/0 a.internal, skipped 1: gone.internal A: there is no such name (NXDOMAIN)", 7*time.Second)
	f("_twice._tcp.internal", "10.0.0.1:80 1/1/0 a.internal, 10.0.0.2:80 1/1/0 a.internal", 7*time.Second)
	wantDNS(t, newSRV(t, SRVOptions{Name: "_web._tcp.internal", Family: IPv6, Servers: []string{n.address}}), "[fd00::2]:8080 5/2/0 b.internal", 7*time.Second)
	for name, want := range map[string][2]string{
		"_missing._tcp.internal": {ReasonNXDomain, "_missing._tcp.internal SRV"},
		"_gone._tcp.internal":    {ReasonNXDomain, "no target exists"},
		"_zero._tcp.internal":    {ReasonDecode, "port: got 0"},
	} {
		wantDNSError(t, newSRV(t, SRVOptions{Name: name, Servers: []string{n.address}}), want[0], want[1])
	}
}

// TestSRVAdditional: what comes with the answer is not asked for.
func TestSRVAdditional(t *testing.T) {
	lbtest.CheckLeaks(t)
	n := serveDNS(t)
	add := func(to *[]dns.RR, lines ...string) {
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				panic(err)
			}
			*to = append(*to, rr)
		}
	}
	n.set(func(q, m *dns.Msg, _ bool) bool {
		switch q.Question[0].Qtype {
		case dns.TypeSRV:
			add(&m.Answer, "_web._tcp.internal. 60 IN SRV 0 5 80 a.internal.", "_web._tcp.internal. 60 IN SRV 0 5 80 b.internal.")
			add(&m.Extra, "A.internal. 50 IN A 10.0.0.1", "a.internal. 60 IN AAAA fd00::1", "b.internal. 60 IN A 10.0.0.2", "else.internal. 60 IN A 10.6.6.6")
		case dns.TypeAAAA:
			add(&m.Answer, q.Question[0].Name+" 60 IN AAAA fd00::2")
		default:
			m.Rcode = dns.RcodeServerFailure
		}
		return true
	})
	wantDNS(t, newSRV(t, SRVOptions{Name: "_web._tcp.internal", Servers: []string{n.address}}),
		"10.0.0.1:80 5/0/0 a.internal, 10.0.0.2:80 5/0/0 b.internal, [fd00::1]:80 5/0/0 a.internal, [fd00::2]:80 5/0/0 b.internal", 50*time.Second)
	if n.udp.Load() != 2 {
		t.Errorf("%d questions", n.udp.Load())
	}
	// A target that cannot be looked up fails all.
	n.set(func(q, m *dns.Msg, _ bool) bool {
		if q.Question[0].Qtype != dns.TypeSRV {
			m.Rcode = dns.RcodeServerFailure
			return true
		}
		add(&m.Answer, "_web._tcp.internal. 60 IN SRV 0 5 80 a.internal.", "_web._tcp.internal. 60 IN SRV 0 5 80 b.internal.")
		add(&m.Extra, "a.internal. 60 IN A 10.0.0.1")
		return true
	})
	wantDNSError(t, newSRV(t, SRVOptions{Name: "_web._tcp.internal", Servers: []string{n.address}, Family: IPv4}), ReasonServFail, "b.internal A: SERVFAIL")
	n.set(func(q, m *dns.Msg, _ bool) bool {
		for i := range maxTargets + 1 {
			add(&m.Answer, fmt.Sprintf("_web._tcp.internal. 60 IN SRV 0 5 80 a%d.internal.", i))
		}
		return true
	})
	wantDNSError(t, newSRV(t, SRVOptions{Name: "_web._tcp.internal", Servers: []string{n.address}}), ReasonTooLarge, "257 targets")
}

func TestSRVScale(t *testing.T) {
	f := func(in [][2]uint16, want string) {
		t.Helper()
		var all []*dns.SRV
		for _, x := range in {
			all = append(all, &dns.SRV{Priority: x[0], Weight: x[1]})
		}
		weights, priorities := scale(all)
		if got := fmt.Sprint(priorities, weights); got != want {
			t.Errorf("%v: got %s; want %s", in, got, want)
		}
	}
	f(nil, "[] []")
	f([][2]uint16{{0, 0}, {0, 0}}, "[0 0] [1 1]")
	f([][2]uint16{{10, 1000}, {255, 5}}, "[10 255] [1000 5]")
	f([][2]uint16{{10, 65535}, {300, 32768}, {10, 0}, {20, 1}}, "[0 2 0 1] [1000 500 1 1]")
	var many [][2]uint16
	for i := range 300 {
		many = append(many, [2]uint16{uint16(i), 1})
	}
	weights, priorities := scale(func() (all []*dns.SRV) {
		for _, x := range many {
			all = append(all, &dns.SRV{Priority: x[0], Weight: x[1]})
		}
		return all
	}())
	if priorities[299] != 255 || priorities[254] != 254 || weights[0] != 1 {
		t.Error(priorities, weights)
	}
}

func TestSRVOptionsAreChecked(t *testing.T) {
	for _, o := range []SRVOptions{{}, {Name: "web..internal"}, {Name: "_web._tcp.internal", Family: 3}, {Name: "_web._tcp.internal", Servers: []string{"x"}},
		{Name: "_web._tcp.internal", MinTTL: time.Minute, MaxTTL: time.Second}} {
		if _, err := NewSRV(o); err == nil || !strings.HasPrefix(err.Error(), "srv: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
