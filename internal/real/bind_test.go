//go:build real

package real

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// bindWorld is a bind9 with the zone "test". Instance n is an SRV record of _web._tcp.test, whose target is hN.test.
type bindWorld struct {
	t       *testing.T
	server  *process
	port    string
	zone    string // file
	serial  int
	records []string       // beside those of instances
	srv     map[int]string // of instances
	outside
}

func newBind(t *testing.T) *bindWorld {
	t.Helper()
	dir := shortDir(t)
	w := &bindWorld{t: t, port: freePort(t), zone: filepath.Join(dir, "zone"), srv: map[int]string{}}
	conf := filepath.Join(dir, "named.conf")
	text := fmt.Sprintf(`options { directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none;
	recursion no; dnssec-validation no; minimal-responses no; };
controls {};
zone "test" { type primary; file "zone"; };
zone "broken.test" { type primary; file "nothing"; };
`, dir, w.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write()
	w.server = &process{t: t, log: filepath.Join(dir, "log"), argv: []string{"/usr/sbin/named", "-g", "-n", "1", "-c", conf}}
	t.Cleanup(func() {
		w.server.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Log(w.server.tail())
		}
	})
	w.start()
	return w
}

// write makes the zone what it is to be. The name who is there whatever else is.
func (w *bindWorld) write() {
	w.t.Helper()
	w.serial++
	text := fmt.Sprintf("$TTL 1\n@ SOA ns.test. root.test. %d 60 60 60 1\n@ NS ns\nns A 127.0.0.1\nserial TXT %d\n_web._tcp TXT here\n", w.serial, w.serial)
	text += strings.Join(append(w.records, slices.Collect(maps.Values(w.srv))...), "\n") + "\n"
	whole := w.zone + ".new"
	if err := os.WriteFile(whole, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(whole, w.zone); err != nil {
		w.t.Fatal(err)
	}
}

// reload has the server read what write wrote.
func (w *bindWorld) reload() {
	w.t.Helper()
	w.write()
	w.server.signal(syscall.SIGHUP)
	w.serves()
}

// serves waits for the zone that was written last.
func (w *bindWorld) serves() {
	w.t.Helper()
	until(w.t, "bind serves the zone", 30*time.Second, func() bool {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+w.port)
		}}
		texts, err := r.LookupTXT(w.t.Context(), "serial.test.")
		return err == nil && slices.Equal(texts, []string{strconv.Itoa(w.serial)})
	})
}

func (w *bindWorld) start() {
	w.t.Helper()
	w.server.start()
	w.serves()
}

func (w *bindWorld) stop(s syscall.Signal) { w.server.stop(s) }

func (w *bindWorld) add(n, weight int) string {
	w.t.Helper()
	at := w.at(n)
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.srv[n] = fmt.Sprintf("_web._tcp SRV 0 %d %s h%d\nh%d A %s", weight, port, n, n, host)
	w.reload()
	return entry(at, weight)
}

func (w *bindWorld) change(n, weight int) string { return w.add(n, weight) }

func (w *bindWorld) remove(n int) {
	w.t.Helper()
	delete(w.srv, n)
	w.reload()
}

func (w *bindWorld) source() discovery.Source {
	s, err := discovery.NewSRV(discovery.SRVOptions{Name: "_web._tcp.test", Servers: []string{"127.0.0.1:" + w.port}, MinTTL: 100 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *bindWorld) table() string {
	return fmt.Sprintf("kind = \"srv\"\nname = \"_web._tcp.test\"\nservers = [\"127.0.0.1:%s\"]\nmin_ttl = \"100ms\"\n", w.port)
}

func TestBind(t *testing.T) { tell(t, newBind(t)).whole() }

// TestBindAnswers is what a server may say of a name: addresses, more than a datagram holds, aliases, nothing, that there is no
// such name, and that it cannot tell.
func TestBindAnswers(t *testing.T) {
	w := newBind(t)
	fetch := func(name string) (discovery.List, error) {
		t.Helper()
		s, err := discovery.NewDNS(discovery.DNSOptions{Name: name, Port: 80, Servers: []string{"127.0.0.1:" + w.port}})
		if err != nil {
			t.Fatal(err)
		}
		return s.Fetch(t.Context())
	}
	gets := func(name string, ttl time.Duration, want ...string) {
		t.Helper()
		list, err := fetch(name)
		if got := entries(list.Backends); err != nil || list.TTL != ttl || !slices.Equal(got, append([]string{}, want...)) {
			t.Errorf("%s: got %v for %v, %v; want %v for %v", name, got, list.TTL, err, want, ttl)
		}
	}
	fails := func(name, reason string) {
		t.Helper()
		if list, err := fetch(name); err == nil || discovery.ReasonOf(err) != reason {
			t.Errorf("%s: got %v, %v; want %s", name, entries(list.Backends), err, reason)
		}
	}
	w.records = []string{"web 60 A 10.0.0.1", "web 60 A 10.0.0.2", "web 20 AAAA fd00::1", "alias 10 CNAME web", "nothing TXT here"}
	var many []string
	for i := range 100 { // bind9 takes no more of a type
		w.records = append(w.records, fmt.Sprintf("many 30 A 10.1.0.%d", i+1))
		many = append(many, entry(fmt.Sprintf("10.1.0.%d:80", i+1), 1))
	}
	slices.Sort(many)
	w.reload()
	gets("web.test", 20*time.Second, "10.0.0.1:80 weight=1", "10.0.0.2:80 weight=1", "[fd00::1]:80 weight=1")
	gets("alias.test", 10*time.Second, "10.0.0.1:80 weight=1", "10.0.0.2:80 weight=1", "[fd00::1]:80 weight=1")
	gets("many.test", 5*time.Second, many...) // of AAAA there are none, for the second that SOA says
	gets("nothing.test", 5*time.Second)
	fails("no-such.test", discovery.ReasonNXDomain)
	fails("web.broken.test", discovery.ReasonServFail)
	fails("web.elsewhere", discovery.ReasonServFail) // REFUSED
}
