package discovery

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestEveryKindIsMade: what the configuration knows as a kind is one here.
func TestEveryKindIsMade(t *testing.T) {
	keys := map[string]string{
		"file": "path = '/x'", "exec": "command = ['/bin/true', 'a']\nenv = ['A=b']", "http": "url = 'https://catalog.internal/x'\nheaders = ['A: b']\nuser = 'u'\npassword = 'p'",
		"dns": "name = 'web.internal'\nport = 80", "srv": "name = '_http._tcp.web.internal'", "consul": "url = 'http://127.0.0.1:8500'\nservice = 'web'\ntoken = 't'",
		"docker": "labels = ['awe4lb.pool=web']\nfilters = ['name=a', 'name=b', 'network=c']\npublished = true\nhost = '10.0.0.1'\nfamily = 'ipv6'",
		"lxd":    "url = 'unix:///var/lib/incus/unix.socket'\nconfig_key = 'user.pool'\nconfig_value = 'web'\nport = 80",
		"etcd":   "endpoints = ['http://10.0.0.1:2379', 'http://10.0.0.2:2379']\nprefix = '/backends/'\nuser = 'u'\npassword = 'p'",
		"redis":  "url = 'rediss://10.0.0.1:6379'\nname = 'web'\ndb = 2\npassword = 'p'\nserver_name = 'redis.internal'",

		"kubernetes": "url = 'https://10.0.0.1:6443'\ntoken = 't'\nservice = 'web'\nport = 'http'\nnode_port = true",
	}
	field, _ := reflect.TypeFor[config.Source]().FieldByName("Kind")
	for _, kind := range strings.Fields(field.Tag.Get("oneof")) {
		cfg, err := config.Parse("x.toml", []byte("[pools.p.discovery]\nkind = '"+kind+"'\n"+keys[kind]))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if errs := Check(cfg); len(errs) > 0 {
			t.Errorf("%s: %v", kind, errs)
		}
		source, err := newSource(&cfg.Pools[0].Discovery.Source)
		if err != nil || !strings.HasPrefix(source.String(), kind+":") {
			t.Errorf("%s: %v, %v", kind, source, err)
		}
	}
}

// TestSettingsAreTheConfigured: none is lost on the way.
func TestSettingsAreTheConfigured(t *testing.T) {
	cfg, err := config.Parse("x.toml", []byte(`engine.discovery_allow = ["10.0.0.0/8"]
[pools.p.discovery]
kind = "file"
path = "/x"
interval = "1m"
jitter = 20
timeout = "2s"
retry_min = "3s"
retry_max = "4s"
debounce = "5s"
on_failure = "empty"
max_age = "6s"
min_share = 7
confirm = 8
max_backends = 9
save_to = "/nonexistent/y"
`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Configured(cfg.Pools[0], cfg.Engine.DiscoveryAllow, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{Interval: time.Minute, Jitter: 0.2, Timeout: 2 * time.Second, RetryMin: 3 * time.Second, RetryMax: 4 * time.Second, Debounce: 5 * time.Second,
		Fail: Empty, MaxAge: 6 * time.Second, MinShare: 7, Confirm: 8, MaxBackends: 9, SaveTo: "/nonexistent/y", Within: cfg.Engine.DiscoveryAllow}
	r.set.Static, r.set.Tell = nil, nil
	if !reflect.DeepEqual(r.set, want) {
		t.Errorf("got %+v\nwant %+v", r.set, want)
	}
}

// TestConfined: what is outside of the addresses allowed is not asked, whatever kind of server it is, though the kind would.
func TestConfined(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "10.0.0.1:80\n") }))
	server.Listener.Close()
	server.Listener = l
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			asked.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	at := l.Addr().String()
	cert, key := lbtest.NewCA(t).Issue(lbtest.Leaf{Names: []string{"us"}})
	tables := map[string]string{
		"http": "url = 'http://AT'\nallow = ['127.0.0.0/8']", "dns": "name = 'web.internal'\nport = 80\nservers = ['AT']", "srv": "name = '_a._tcp.b.c'\nservers = ['AT']",
		"consul": "url = 'http://AT'\nservice = 'web'", "docker": "url = 'tcp://AT'", "lxd": fmt.Sprintf("url = 'https://AT'\nport = 80\ncert = %q\nkey = %q", lbtest.Files(t, "c.pem", cert), lbtest.Files(t, "c.key", key)),
		"kubernetes": "url = 'http://AT'\nservice = 'web'", "etcd": "endpoints = ['http://AT']\nprefix = '/b/'", "redis": "url = 'redis://AT'\nname = 'web'",
		"redis by TLS": "url = 'rediss://AT'\nname = 'web'", "docker by TLS": "url = 'https://AT'", "file": "path = '/x'", "exec": "command = ['/bin/true']",
	}
	field, _ := reflect.TypeFor[config.Source]().FieldByName("Kind")
	for _, kind := range strings.Fields(field.Tag.Get("oneof")) {
		if tables[kind] == "" {
			t.Errorf("%s is not tried", kind)
		}
	}
	for name, table := range tables {
		kind, _, _ := strings.Cut(name, " ")
		if kind == "file" || kind == "exec" {
			continue // they ask nobody
		}
		cfg, err := config.Parse("x.toml", []byte("[pools.p.discovery]\nkind = '"+kind+"'\n"+strings.ReplaceAll(table, "AT", at)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, err := newSource(&cfg.Pools[0].Discovery.Source)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		within := confine(ctx, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
		refused := func(how string, err error) {
			if err == nil || ReasonOf(err) != ReasonRefused || !strings.Contains(err.Error(), "engine.discovery_allow") || asked.Load() != 0 {
				t.Errorf("%s, %s: %v (%s), asked %d times", name, how, err, ReasonOf(err), asked.Load())
			}
		}
		_, err = s.Fetch(within)
		refused("fetch", err)
		if w, ok := s.(Watcher); ok {
			refused("watch", w.Watch(within, func(List) { t.Errorf("%s reports", name) }))
		}
	}
	list, err := NewHTTP(HTTPOptions{URL: server.URL, Allow: loopback})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := list.Fetch(confine(t.Context(), loopback)); err != nil || len(l.Backends) != 1 || asked.Load() != 1 {
		t.Errorf("%v, %v, asked %d times", l, err, asked.Load())
	}
}

// heard notes what a Keeper says.
type heard struct {
	mu    sync.Mutex
	lists map[string][]string
	what  []string
}

func (h *heard) options() KeeperOptions {
	h.lists = map[string][]string{}
	return KeeperOptions{
		Changed: func(pool string, list []*config.Backend) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lists[pool] = addresses(list)
		},
		Tell: func(pool string, e Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.what = append(h.what, pool+" "+e.What)
		},
	}
}

func addresses(list []*config.Backend) []string {
	all := []string{}
	for _, b := range list {
		all = append(all, b.Address.String())
	}
	return all
}

// TestKeeper: what is the same stays, what is new has the lists of the old, what is gone ends.
func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "10.0.0.1:80\n")
	write("b", "10.0.0.2:80\n")
	parse := func(settings string) *config.Config {
		cfg, err := config.Parse(filepath.Join(dir, "x.toml"), []byte("[pools.a.discovery]\nkind='file'\npath='a'\n"+settings+"\n[pools.b.discovery]\nkind='file'\npath='b'\n[pools.c]\n"))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	h := new(heard)
	k := NewKeeper(h.options())
	defer k.Close()
	set, err := k.Prepare(parse(""))
	if err != nil || len(set.Found()) != 2 || len(set.Found()["a"]) != 0 {
		t.Fatalf("%v, %v", set.Found(), err)
	}
	k.Commit(set)
	k.Wait(t.Context(), 20*time.Second)
	h.mu.Lock()
	if fmt.Sprint(h.lists) != "map[a:[10.0.0.1:80] b:[10.0.0.2:80]]" {
		t.Errorf("lists %v", h.lists)
	}
	h.mu.Unlock()
	was := k.runner("b")

	// The source of a is gone by now; other settings, though, and what it said is still there.
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	set, err = k.Prepare(parse("min_share = 10"))
	if err != nil || len(set.Found()) != 1 || fmt.Sprint(addresses(set.Found()["a"])) != "[10.0.0.1:80]" {
		t.Fatalf("%v, %v", set.Found(), err)
	}
	if k.runner("a") == nil || len(k.Status()) != 2 {
		t.Error("Prepare has changed something")
	}
	k.Commit(set)
	if k.runner("b") != was {
		t.Error("a source that stays the same was made anew")
	}
	k.Wait(t.Context(), 20*time.Second)
	for _, s := range k.Status() {
		if s.Pool == "a" && (s.Backends != 1 || s.Sources[0].State != Failing) {
			t.Errorf("a: %+v", s)
		}
	}
	if !k.Refresh("a") || k.Refresh("c") || k.Refresh("d") {
		t.Error("refresh")
	}
	if n, ok := k.Accept("a"); n != 0 || !ok {
		t.Errorf("accept: %d, %v", n, ok)
	}

	// A mistake changes nothing.
	bad := parse("min_share = 11")
	bad.Pools[1].Discovery.Source.Options = &config.HTTPSource{URL: "https://x.internal", SourceTLS: config.SourceTLS{CA: "/nonexistent"}}
	if _, err := k.Prepare(bad); err == nil || !strings.Contains(err.Error(), "pools.b.discovery") || len(k.Status()) != 2 {
		t.Errorf("%v", err)
	}
	set, err = k.Prepare(&config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	k.Commit(set)
	if len(k.Status()) != 0 {
		t.Errorf("%v is left", k.Status())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if all := strings.Join(h.what, ", "); !strings.Contains(all, "a change") || !strings.Contains(all, "a restored") || !strings.Contains(all, "a failing") {
		t.Errorf("told of %s", all)
	}
}

// TestWaitIsBounded: a source that does not answer does not hold up a start.
func TestWaitIsBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	cfg, err := config.Parse("x.toml", []byte("[pools.p.discovery]\nkind='http'\nurl='"+server.URL+"'\nallow=['127.0.0.1']\ntimeout='1m'\n"))
	if err != nil {
		t.Fatal(err)
	}
	k := NewKeeper(new(heard).options())
	set, err := k.Prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k.Commit(set)
	began := time.Now()
	k.Wait(t.Context(), 50*time.Millisecond)
	k.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
