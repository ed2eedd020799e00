package discovery

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// dockerServer replays dockerd as it was recorded: four containers, and events of a fifth until the daemon is killed.
func dockerServer(t *testing.T) *replay {
	p := &replay{}
	p.set("/_ping", answer{bytes: recording(t, "docker/ping.http")})
	p.set("/v1.41/containers/json", answer{bytes: recording(t, "docker/containers.http")})
	p.set("/v1.41/events", answer{bytes: recording(t, "docker/events.http")})
	return p
}

func newTestDocker(t *testing.T, o DockerOptions) *docker {
	t.Helper()
	d, err := newDocker(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// dockerList is what the recorded containers are to who reaches them on their networks: h1 has the host's.
const dockerList = "127.0.0.1:8080 1/0/0 container=h1, 172.17.0.2:8080 1/0/0 container=p1, 10.78.0.12:8080 4/0/0 container=w2, 10.78.0.11:8080 1/0/0 container=w1"

func TestDocker(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := dockerServer(t)
	d := newTestDocker(t, DockerOptions{Endpoint: p.unix(t), Labels: []string{"awe4lb.pool=web"}, Filters: map[string][]string{"name": {"a"}}})
	fetch(t, d, dockerList)
	lists, err := watched(t, d, 10*time.Second)
	if !slices.Equal(lists, []string{dockerList}) {
		t.Errorf("got %q", lists)
	}
	wantEnd(t, err, ReasonOther, "the stream was cut")
	if !strings.HasPrefix(err.Error(), "docker:unix:///") {
		t.Error(err)
	}

	// An event makes it list again.
	p.set("/v1.41/events", answer{bytes: recording(t, "docker/events.http"), hold: true})
	wantAgain(t, d)
	if want := `{"label":["awe4lb.pool=web"],"name":["a"],"status":["running"]}`; d.filters != want {
		t.Errorf("filters %s; want %s", d.filters, want)
	}
}

func TestDockerWays(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := dockerServer(t)
	var names struct {
		Id string
	}
	for _, c := range containers(t) {
		path := "/v1.41/containers/" + c.ID + "/json"
		if c.name() == "p1" {
			p.set(path, answer{bytes: recording(t, "docker/inspect.http")})
			names.Id = path
		} else {
			p.set(path, answer{bytes: recording(t, "docker/gone.http")})
		}
	}
	at := p.unix(t)
	f := func(o DockerOptions, want string) {
		t.Helper()
		o.Endpoint = at
		list, err := newTestDocker(t, o).Fetch(t.Context())
		if got := show(list); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("got %s %v; want %s", got, err, want)
		}
	}
	f(DockerOptions{Network: "backends"}, `127.0.0.1:8080 1/0/0 container=h1, 10.78.0.12:8080 4/0/0 container=w2, 10.78.0.11:8080 1/0/0 container=w1, skipped 1: container "p1": it is not on the network "backends"`)
	f(DockerOptions{Network: "backends", Host: "192.0.2.1"}, `192.0.2.1:8080`)
	f(DockerOptions{Network: "backends", Port: 81}, `127.0.0.1:8080 1/0/0 container=h1, 10.78.0.12:81 4/0/0`)
	f(DockerOptions{Network: "backends", UDP: true}, `127.0.0.1:8080 1/0/0 container=h1, skipped 3: container "p1": no port is said`)
	f(DockerOptions{Published: true}, `127.0.0.1:8080 1/0/0 container=h1, 10.77.0.1:8082 1/0/0 container=p1, 127.0.0.1:8081 1/0/0 container=p1, skipped 2: container "w2": it publishes none of the ports [8080]`)
	f(DockerOptions{Published: true, Port: 8080, Host: "fd00::1"}, `[fd00::1]:8080 1/0/0 container=h1, 10.77.0.1:8082 1/0/0 container=p1, [fd00::1]:8081`)
	f(DockerOptions{Published: true, HostEnv: "HOST"}, `127.0.0.1:8080 1/0/0 container=h1, 192.0.2.7:8082 1/0/0 container=p1, 192.0.2.7:8081 1/0/0 container=p1, skipped 2`)
	f(DockerOptions{Published: true, HostEnv: "NONE"}, `127.0.0.1:8080 1/0/0 container=h1, 10.77.0.1:8082 1/0/0 container=p1`)

	d := newTestDocker(t, DockerOptions{Endpoint: at, Published: true, HostEnv: "HOST"})
	before := len(p.requests(names.Id))
	for range 3 {
		if _, err := d.Fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.requests(names.Id)) - before; n != 1 {
		t.Errorf("looked into one container %d times", n)
	}
}

func containers(t testing.TB) []dockerContainer {
	all, err := decodeContainers(body(t, "docker/containers.http"))
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	return all
}

// TestDockerContainer changes what was recorded.
func TestDockerContainer(t *testing.T) {
	f := func(o DockerOptions, edit func(*dockerContainer), want string) {
		t.Helper()
		o.Endpoint = "unix:///s"
		i := slices.IndexFunc(containers(t), func(c dockerContainer) bool { return c.name() == "w1" })
		c := containers(t)[i]
		edit(&c)
		got := show(newTestDocker(t, o).backends([]dockerContainer{c}))
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("got %s; want %s", got, want)
		}
	}
	label := func(kv ...string) func(*dockerContainer) {
		return func(c *dockerContainer) {
			for i := 0; i < len(kv); i += 2 {
				c.Labels[kv[i]] = kv[i+1]
			}
		}
	}
	f(DockerOptions{}, label("awe4lb.port", "81, 82", "awe4lb.priority", "2", "awe4lb.max_connections", "7", "awe4lb.sni", "a.test", "awe4lb.zone", "z", "awe4lb.label.rack", "r", "awe4lb.network", "backends"),
		"10.78.0.11:81 1/2/7 a.test z container=w1 rack=r, 10.78.0.11:82 1/2/7 a.test z container=w1 rack=r")
	f(DockerOptions{SNILabel: "sni"}, label("sni", "b.test"), "10.78.0.11:8080 1/0/0 b.test container=w1")
	f(DockerOptions{SNILabel: "sni"}, label("sni", "b.test", "awe4lb.sni", "a.test"), "10.78.0.11:8080 1/0/0 a.test container=w1")
	f(DockerOptions{}, label("awe4lb.enable", "false"), "")
	f(DockerOptions{}, label("awe4lb.enable", "perhaps"), `skipped 1: container "w1": label "awe4lb.enable": got "perhaps"`)
	f(DockerOptions{}, label("awe4lb.wieght", "3"), `skipped 1: container "w1": label "awe4lb.wieght"`)
	f(DockerOptions{}, label("awe4lb.weight", "1001"), `skipped 1: container "w1": weight: got 1001`)
	f(DockerOptions{}, label("awe4lb.port", "0"), `skipped 1: container "w1": label "awe4lb.port": got "0"`)
	f(DockerOptions{}, label("awe4lb.port", strings.Repeat("1,", 64)+"1"), `skipped 1: container "w1": label "awe4lb.port": more than 64`)
	f(DockerOptions{}, label("awe4lb.network", "a"), `skipped 1: container "w1": it is not on the network "a"`)
	f(DockerOptions{}, func(c *dockerContainer) { c.NetworkSettings.Networks["a"] = &dockerNetwork{} }, `skipped 1: container "w1": it is on 2 networks ("a, backends"); want network`)
	f(DockerOptions{}, func(c *dockerContainer) { c.NetworkSettings.Networks["backends"].IPAddress = "" }, `skipped 1: container "w1": on the network "backends" it has the address ""`)
	f(DockerOptions{IPv6: true}, func(c *dockerContainer) { c.NetworkSettings.Networks["backends"].GlobalIPv6Address = "fd00::1" }, "[fd00::1]:8080")
	f(DockerOptions{}, func(c *dockerContainer) {
		*c.NetworkSettings.Networks["backends"] = dockerNetwork{GlobalIPv6Address: "fd00::1"}
	}, "[fd00::1]:8080")
	f(DockerOptions{}, func(c *dockerContainer) { c.State = "paused" }, "")
	for status, in := range map[string]bool{"Up 1 minute (healthy)": true, "Up 1 minute (unhealthy)": false, "Up 1 second (health: starting)": false} {
		want := ""
		if in {
			want = "10.78.0.11:8080"
		}
		f(DockerOptions{}, func(c *dockerContainer) { c.Status = status }, want)
		f(DockerOptions{Unhealthy: true}, func(c *dockerContainer) { c.Status = status }, "10.78.0.11:8080")
	}
}

func TestDockerBadMoments(t *testing.T) {
	lbtest.CheckLeaks(t)
	for _, c := range []struct {
		path         string
		say          answer
		lists        []string
		reason, want string
	}{
		{"/_ping", ok("OK"), nil, ReasonDecode, `Api-Version: got ""`},
		{"/_ping", answer{bytes: []byte("HTTP/1.1 200 OK\r\nApi-Version: 1.12\r\nContent-Length: 0\r\n\r\n")}, nil, ReasonDecode, `Api-Version: got "1.12"; want 1.24 or newer`},
		{"/_ping", answer{bytes: []byte("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")}, nil, ReasonStatus, "status 500"},
		{"/_ping", answer{}, nil, ReasonOther, "EOF"},
		{"/_ping", answer{hold: true}, nil, ReasonTimeout, "opening the stream: no answer within 300ms"},
		{"/v1.41/events", answer{bytes: recording(t, "docker/newer.http")}, nil, ReasonStatus, "status 400"},
		{"/v1.41/events", answer{hold: true}, nil, ReasonTimeout, "opening the stream: no answer within 300ms"},
		{"/v1.41/events", ok("garbage"), []string{dockerList}, ReasonDecode, "invalid character"},
		{"/v1.41/events", ok("{}"), []string{dockerList}, ReasonDecode, "without Type"},
		{"/v1.41/events", ok(`{"Type":"` + strings.Repeat("a", 2<<20)), []string{dockerList}, ReasonTooLarge, "more than 1048576 bytes"},
		{"/v1.41/containers/json", answer{bytes: recording(t, "docker/newer.http")}, nil, ReasonStatus, "status 400"},
		{"/v1.41/containers/json", ok("null"), nil, ReasonDecode, "got null"},
		{"/v1.41/containers/json", ok("{}"), nil, ReasonDecode, "cannot unmarshal"},
		{"/v1.41/containers/json", ok("[" + strings.Repeat(" ", 5<<20) + "]"), nil, ReasonTooLarge, "more than 4194304 bytes"},
		{"/v1.41/containers/json", answer{bytes: []byte("HTTP/1.1 200 OK\r\n"), hold: true}, nil, ReasonTimeout, "listing: no answer within 300ms"},
	} {
		p := dockerServer(t)
		p.set("/v1.41/events", answer{bytes: recording(t, "docker/events.http")[:400], hold: true})
		p.set(c.path, c.say)
		d := newTestDocker(t, DockerOptions{Endpoint: p.tcp(t)})
		if c.reason == ReasonTimeout {
			d.patience = 300 * time.Millisecond
		}
		lists, err := watched(t, d, 10*time.Second)
		if !slices.Equal(lists, c.lists) {
			t.Errorf("%s: got %q; want %q", c.want, lists, c.lists)
		}
		wantEnd(t, err, c.reason, c.want)
	}
}

// TestDockerCutAnywhere: wherever a stream or a list ends, no list is wrong.
func TestDockerCutAnywhere(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := dockerServer(t)
	d := newTestDocker(t, DockerOptions{Endpoint: p.unix(t)})
	whole := recording(t, "docker/events.http")
	for n := 0; n < len(whole); n += 331 {
		p.set("/v1.41/events", answer{bytes: whole[:n], slow: n%2 == 0})
		if lists, err := watched(t, d, 10*time.Second); err == nil || len(lists) > 1 || len(lists) == 1 && lists[0] != dockerList {
			t.Fatalf("cut at %d: %q %v", n, lists, err)
		}
	}
	whole = recording(t, "docker/containers.http")
	for n := 0; n < len(whole)-1; n += 47 {
		p.set("/v1.41/containers/json", answer{bytes: whole[:n]})
		if list, err := d.Fetch(t.Context()); err == nil || len(list.Backends) > 0 {
			t.Fatalf("cut at %d: %s", n, show(list))
		}
	}
}

// TestDockerDeadStream: events that stop coming are noticed by what has changed meanwhile, when resync is over.
func TestDockerDeadStream(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := dockerServer(t)
	p.set("/v1.41/events", answer{bytes: recording(t, "docker/events.http")[:300], hold: true})
	p.set("/v1.41/containers/json", answer{bytes: recording(t, "docker/containers.http")}, ok("[]"))
	d := newTestDocker(t, DockerOptions{Endpoint: p.unix(t)})
	d.resync = 50 * time.Millisecond
	lists := watchedUntil(t, d, "")
	if !slices.Equal(lists, []string{dockerList, ""}) {
		t.Errorf("got %q", lists)
	}
	if n := len(p.requests("/_ping")); n < 2 {
		t.Errorf("negotiated %d times", n)
	}
}

// TestDockerNegotiates: of a daemon that is newer, and of one that is older, the API that both know is asked for.
func TestDockerNegotiates(t *testing.T) {
	lbtest.CheckLeaks(t)
	for said, want := range map[string]string{"1.52": "/v1.51", "1.24": "/v1.24", "1.44": "/v1.44"} {
		p := dockerServer(t)
		p.set("/_ping", answer{bytes: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nApi-Version: %s\r\nContent-Length: 0\r\n\r\n", said)})
		p.set(want+"/containers/json", answer{bytes: recording(t, "docker/containers.http")})
		fetch(t, newTestDocker(t, DockerOptions{Endpoint: p.unix(t)}), dockerList)
	}
}

func TestDockerOptionsAreChecked(t *testing.T) {
	for _, o := range []DockerOptions{
		{Endpoint: "unix://relative"}, {Endpoint: "http://u:s3cret@h"}, {Endpoint: "ftp://h"}, {Endpoint: "http://h?a=s3cret"}, {Labels: []string{"=a"}}, {Labels: []string{"a\n"}},
		{Port: 65536}, {Port: -1}, {Published: true, Network: "a"}, {HostEnv: "A", Network: "a"}, {HostEnv: "A="}, {Filters: map[string][]string{"status": {"exited"}}},
		{Filters: map[string][]string{"name": nil}}, {Host: "name"}, {Host: "0.0.0.0"}, {Resync: time.Millisecond}, {MaxBytes: -1},
	} {
		if _, err := NewDocker(o); err == nil || !strings.HasPrefix(err.Error(), "docker: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	d := newTestDocker(t, DockerOptions{Labels: []string{"a=b"}})
	if s := d.String(); !strings.HasPrefix(s, "docker:unix:///var/run/docker.sock a=b …") {
		t.Error(s)
	}
	d = newTestDocker(t, DockerOptions{Endpoint: "tcp://10.0.0.1:2376", TLS: HTTPTLS{Insecure: true}})
	if d.api.url.Scheme != "https" || d.host.String() != "10.0.0.1" {
		t.Error(d.api.url, d.host)
	}
	var filters map[string][]string
	if q := (url.Values{"filters": {dockerEvents}}); json.Unmarshal([]byte(q.Get("filters")), &filters) != nil || len(filters["event"]) == 0 {
		t.Error(q)
	}
}

// FuzzDocker reads any bytes as each of the answers.
func FuzzDocker(f *testing.F) {
	f.Add(body(f, "docker/containers.http"), []byte(`{"Type":"container","Action":"start"}`), body(f, "docker/inspect.http"))
	d, err := newDocker(DockerOptions{Published: true, HostEnv: "HOST"})
	if err != nil {
		f.Fatal(err)
	}
	direct, err := newDocker(DockerOptions{SNILabel: "sni"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, list, events, inspect []byte) {
		host, err := decodeEnv(inspect, "HOST")
		all, err2 := decodeContainers(list)
		if err == nil && err2 == nil && len(all) > 0 {
			d.hosts = map[string]string{all[0].ID: host}
		}
		for _, l := range []List{d.backends(all), direct.backends(all)} {
			for i := range l.Backends {
				if err := l.Backends[i].Check(); err != nil {
					t.Error(err)
				}
			}
			if l.Skipped > 0 && checkText("", l.Why[:min(len(l.Why), 200)]) != nil && !strings.Contains(l.Why, "…") {
				t.Errorf("shows %q", l.Why)
			}
		}
		s := &dockerStream{messages: newMessages(strings.NewReader(string(events)), 1<<12)}
		for s.next() == nil {
		}
	})
}
