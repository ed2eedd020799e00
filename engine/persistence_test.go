package engine

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// stick gives the pool of a test persistence.
func stick(c *config.Config) {
	c.Pools[0].Persistence = &config.Persistence{Key: "source", TTL: time.Minute, MaxEntries: 1000}
}

// names makes n backends that say their number to each client.
func names(t *testing.T, n int) (addresses []string) {
	for i := range n {
		addresses = append(addresses, lbtest.Named(t, fmt.Sprint(i)))
	}
	return addresses
}

// from connects from an address of 127.0.0.0/8.
func (r *rig) from(source string) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", r.address())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// visit returns what the backend of a client at source says.
func (r *rig) visit(source string) string {
	r.t.Helper()
	c := r.from(source)
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil || len(b) == 0 {
		r.t.Fatalf("got %q, %v", b, err)
	}
	return string(b)
}

// member returns the backend whose name a visitor heard.
func (r *rig) member(name string) *balancer.Member {
	var i int
	_, _ = fmt.Sscan(name, &i)
	return r.d.Snapshot().Pools[0].Members[i]
}

// TestPersistence: clients keep their backends over connections and reloads, through a drain, until the backend goes down.
func TestPersistence(t *testing.T) {
	backends := names(t, 5)
	r := newRig(t, backends, stick)
	has := map[string]string{}
	for i := range 10 {
		source := fmt.Sprintf("127.0.0.%d", 10+i)
		has[source] = r.visit(source)
	}
	same := func(what string, but string) {
		t.Helper()
		for source, name := range has {
			for range 3 {
				if got := r.visit(source); got != name && name != but {
					t.Fatalf("%s: %s moved from %s to %s", what, source, name, got)
				}
			}
		}
	}
	same("again", "")
	r.apply(testConfig(backends, stick))
	same("reload", "")
	r.member("0").SetState(balancer.Drain)
	same("drain", "")
	if got := r.visit("127.0.0.99"); got == "0" {
		t.Error("a new client goes to a backend that drains")
	}
	r.member("0").Readmit()
	r.member("1").SetState(balancer.Down)
	same("one is down", "1")
	r.member("1").SetState(balancer.Up)
	for source, name := range has {
		if got := r.visit(source); got == "1" && name == "1" {
			t.Errorf("%s is back where it was: it had moved", source)
		}
	}
	if st, _ := r.d.Snapshot().Pools[0].StickStats(); st.Entries != 11 || st.Moves != 2 || st.Skipped != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestPersistenceFailures: a client whose backend refuses moves, and one whose backend is full does not.
func TestPersistenceFailures(t *testing.T) {
	t.Run("refuses", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Refused(t), lbtest.Named(t, "1")}, stick)
		for range 5 {
			if got := r.visit("127.0.0.1"); got != "1" {
				t.Fatalf("got %s", got)
			}
		}
		if n := r.e.Stats().Pools["p"].Retries; n != 1 {
			t.Errorf("%d retries; want that of the first visit", n)
		}
		if st, _ := r.d.Snapshot().Pools[0].StickStats(); st.Moves != 1 || st.Hits != 4 || st.Misses != 1 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("full", func(t *testing.T) {
		hold := func(name string) string {
			return lbtest.Serve(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, name)
				_, _ = io.Copy(io.Discard, c)
			})
		}
		r := newRig(t, []string{hold("0"), hold("1")}, func(c *config.Config) {
			stick(c)
			c.Pools[0].Backends[0].MaxConnections = 1
		})
		first := r.from("127.0.0.1")
		hear(t, first.(*net.TCPConn), "0")
		hear(t, r.from("127.0.0.1").(*net.TCPConn), "1")
		first.Close()
		lbtest.Eventually(t, "room", func() bool { return r.member("0").Active() == 0 })
		hear(t, r.from("127.0.0.1").(*net.TCPConn), "0")
		if st, _ := r.d.Snapshot().Pools[0].StickStats(); st.Overflows != 1 || st.Moves != 0 || st.Hits != 1 {
			t.Errorf("got %+v", st)
		}
	})
}

// TestPersistenceTLS: where TLS ends here it is the same.
func TestPersistenceTLS(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	r := newRig(t, names(t, 5), func(c *config.Config) {
		stick(c)
		c.Frontends[0].TLS = &config.FrontendTLS{HandshakeTimeout: time.Minute,
			Certificates: []*config.CertificateFiles{{Cert: lbtest.Files(t, "front.pem", cert, key)}}}
		c.Frontends[0].MaxHandshakes, c.Frontends[0].MaxHandshakesPerPrefix = 100, 100
	})
	first := ""
	for range 8 {
		c := tls.Client(r.from("127.0.0.7"), &tls.Config{RootCAs: ca.Pool, ServerName: "a.test"})
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if first == "" {
			first = string(b)
		} else if string(b) != first {
			t.Fatalf("moved from %s to %s", first, b)
		}
	}
}

// TestPersistenceUDP: flows of one client reach one backend from whatever port, in both modes; a refusal moves it.
func TestPersistenceUDP(t *testing.T) {
	for _, mode := range []string{"flow", "datagram"} {
		t.Run(mode, func(t *testing.T) {
			var backends []string
			for i := range 4 {
				backends = append(backends, lbtest.NamedDatagrams(t, fmt.Sprint(i)))
			}
			backends = append(backends, lbtest.Refused(t))
			r := newUDPRig(t, backends, func(c *config.Config) {
				stick(c)
				c.Frontends[0].UDP.Mode = mode
			})
			first := ""
			for i := range 12 {
				c := r.client()
				for range 3 {
					got := c.ask("who")
					if first == "" {
						first = got
					} else if got != first {
						t.Fatalf("client %d: moved from %s to %s", i, first, got)
					}
				}
			}
			entries, _ := r.d.Snapshot().Pools[0].StickEntries(0, 10)
			if len(entries) != 1 || entries[0].Client != netip.MustParsePrefix("127.0.0.1/32") {
				t.Errorf("got %v", entries)
			}
		})
	}
}
