package engine

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestHashByName: clients that ask for one name reach one backend, wherever they come from, and TLS is passed through. Who
// asks for none goes by address.
func TestHashByName(t *testing.T) {
	ca := lbtest.NewCA(t)
	var backends []string
	for i := range 5 {
		name := fmt.Sprint(i)
		pair := ca.Pair("a.test")
		backends = append(backends, lbtest.Serve(t, func(c *net.TCPConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
			_, _ = io.WriteString(s, name)
			_ = s.Close()
		}))
	}
	r := newRig(t, backends, func(c *config.Config) {
		c.Pools[0].Policy, c.Pools[0].HashKey = "maglev", "sni"
	})
	ask := func(source, name string) string {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 5 * time.Second}
		raw, err := d.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		b, err := io.ReadAll(tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true}))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	used := map[string]bool{}
	for i := range 20 {
		name := fmt.Sprintf("site%d.test", i)
		b := ask("127.0.0.1", name)
		used[b] = true
		if other := ask("127.0.0.2", name); other != b {
			t.Errorf("%s: %s from one address, %s from another", name, b, other)
		}
	}
	if len(used) < 3 {
		t.Errorf("20 names reached %d backends", len(used))
	}
	nameless := map[string]bool{}
	for i := range 20 {
		source := fmt.Sprintf("127.0.0.%d", 3+i)
		b := ask(source, "")
		nameless[b] = true
		if again := ask(source, ""); again != b {
			t.Errorf("without a name from %s: %s, then %s", source, b, again)
		}
	}
	if len(nameless) < 3 {
		t.Errorf("20 clients without a name reached %d backends", len(nameless))
	}
}

// TestHashKeysOfDatagrams: clients of one prefix share a backend; by address and port each socket has its own and keeps it.
func TestHashKeysOfDatagrams(t *testing.T) {
	var backends []string
	for i := range 5 {
		backends = append(backends, lbtest.NamedDatagrams(t, fmt.Sprint(i)))
	}
	reached := func(by string) (all map[string]bool) {
		r := newUDPRig(t, backends, func(c *config.Config) {
			c.Pools[0].Policy, c.Pools[0].HashKey, c.Pools[0].HashPrefixV4 = "maglev", by, 24
		})
		all = map[string]bool{}
		for range 20 {
			c := r.client()
			b := c.ask("x")
			all[b] = true
			if again := c.ask("x"); again != b {
				t.Errorf("%s: one client reached %s and %s", by, b, again)
			}
		}
		return all
	}
	if all := reached("prefix"); len(all) != 1 {
		t.Errorf("clients of one prefix reached %v", all)
	}
	if all := reached("source_port"); len(all) < 3 {
		t.Errorf("20 ports reached %v", all)
	}
}

// TestKeyOfFlow: what a flow's client is for a pool is the same as for a session.
func TestKeyOfFlow(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.SilentDatagrams(t)}, func(c *config.Config) {
		c.Pools[0].Policy, c.Pools[0].HashKey = "iphash", "source_port"
	})
	pool := r.d.Snapshot().Pools[0]
	client := netip.MustParseAddrPort("10.1.2.3:4567")
	key := flowKey{client: client.Addr().As16(), port: client.Port()}
	if got, want := key.poolKey(pool), pool.Key(client, nil); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
}

// TestHashByProxiedAddress: the address in a PROXY header is what counts, not that of the proxy.
func TestHashByProxiedAddress(t *testing.T) {
	var backends []string
	for i := range 5 {
		backends = append(backends, lbtest.Named(t, fmt.Sprint(i)))
	}
	r := newRig(t, backends, func(c *config.Config) {
		c.Pools[0].Policy, c.Pools[0].HashKey = "maglev", "source"
		c.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: "required", Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	})
	ask := func(client string, port int) string {
		t.Helper()
		c := r.dial()
		say(t, c, fmt.Sprintf("PROXY TCP4 %s 192.0.2.1 %d 80\r\n", client, port))
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	used := map[string]bool{}
	for i := range 20 {
		client := fmt.Sprintf("10.0.0.%d", i)
		b := ask(client, 1000)
		used[b] = true
		if again := ask(client, 2000); again != b {
			t.Errorf("%s reached %s, then %s", client, b, again)
		}
	}
	if len(used) < 3 {
		t.Errorf("20 clients of one proxy reached %d backends", len(used))
	}
}
