package discovery

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// lxdServer replays LXD as it was recorded: two instances that run and one that does not, and events until it ends.
func lxdServer(t *testing.T) *replay {
	p := &replay{}
	p.set("/1.0/instances", answer{bytes: recording(t, "lxd/instances.http")})
	for _, name := range []string{"w1", "w2", "stopped"} {
		p.set("/1.0/instances/"+name+"/state", answer{bytes: recording(t, "lxd/state-"+name+".http")})
	}
	p.set("/1.0/events", answer{bytes: recording(t, "lxd/events.frames"), websocket: true})
	return p
}

func newTestLXD(t *testing.T, o LXDOptions) *lxd {
	t.Helper()
	l, err := newLXD(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const lxdList = "10.77.0.11:8080 1/0/0 instance=w1, 10.77.0.12:8080 4/0/0 instance=w2"

func TestLXD(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := lxdServer(t)
	l := newTestLXD(t, LXDOptions{URL: p.unix(t), Key: "user.awe4lb.pool", Value: "web", Port: 8080})
	fetch(t, l, lxdList)
	lists, err := watched(t, l, 10*time.Second)
	if !slices.Equal(lists, []string{lxdList}) {
		t.Errorf("got %q", lists)
	}
	wantEnd(t, err, ReasonOther, "the stream was cut")
	p.set("/1.0/events", answer{bytes: recording(t, "lxd/events.frames"), websocket: true, hold: true})
	wantAgain(t, l)
	if n := len(p.requests("/1.0/instances/stopped/state")); n > 0 {
		t.Errorf("asked %d times for the state of one that does not run", n)
	}
	fetch(t, newTestLXD(t, LXDOptions{URL: p.unix(t), Key: "user.awe4lb.pool", Value: "other", Port: 8080}), "")

	// One that has just gone is not there.
	p.set("/1.0/instances/w1/state", answer{bytes: recording(t, "lxd/gone.http")})
	fetch(t, l, "10.77.0.12:8080 4/0/0 instance=w2")
	p.set("/1.0/instances/w1/state", answer{bytes: recording(t, "lxd/state-stopped.http")})
	fetch(t, l, "10.77.0.12:8080 4/0/0 instance=w2")
}

// TestLXDInstance changes what was recorded.
func TestLXDInstance(t *testing.T) {
	f := func(o LXDOptions, edit func(*lxdInstance, *lxdState), want string, ready bool) {
		t.Helper()
		o.URL = "unix:///s"
		var all []lxdInstance
		var s lxdState
		if err := decodeMetadata(body(t, "lxd/instances.http"), &all); err != nil {
			t.Fatal(err)
		}
		if err := decodeMetadata(body(t, "lxd/state-w1.http"), &s); err != nil {
			t.Fatal(err)
		}
		i := all[slices.IndexFunc(all, func(i lxdInstance) bool { return i.Name == "w1" })]
		edit(&i, &s)
		list, isReady, err := newTestLXD(t, o).backends([]lxdInstance{i}, []*lxdState{&s})
		got := show(list)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" || err == nil && isReady != ready {
			t.Errorf("got %s, ready %t; want %s", got, isReady, want)
		}
	}
	key := func(kv ...string) func(*lxdInstance, *lxdState) {
		return func(i *lxdInstance, _ *lxdState) {
			for n := 0; n < len(kv); n += 2 {
				i.Expanded[kv[n]] = kv[n+1]
			}
		}
	}
	f(LXDOptions{}, key("user.awe4lb.port", "81,82", "user.awe4lb.zone", "z", "user.awe4lb.sni", "a.test", "user.awe4lb.max_connections", "7", "user.awe4lb.label.rack", "r"),
		"10.77.0.11:81 1/0/7 a.test z instance=w1 rack=r, 10.77.0.11:82 1/0/7 a.test z instance=w1 rack=r", true)
	f(LXDOptions{Port: 80, PortKey: "user.port", SNIKey: "user.sni", InterfaceKey: "user.nic"}, key("user.port", "81", "user.sni", "b.test", "user.nic", "eth0"), "10.77.0.11:81 1/0/0 b.test", true)
	f(LXDOptions{PortKey: "user.port"}, key("user.port", "many"), `skipped 1: instance "w1": user.port: got "many"`, true)
	f(LXDOptions{}, key(), `skipped 1: instance "w1": no port is said`, true)
	f(LXDOptions{Port: 80}, key("user.awe4lb.enable", "no"), `skipped 1: instance "w1": label "user.awe4lb.enable"`, true)
	f(LXDOptions{Port: 80}, key("user.awe4lb.enable", "false"), "", true)
	f(LXDOptions{Port: 80}, key("user.awe4lb.interface", "eth1"), `skipped 1: instance "w1": "eth1", inet: it has no address yet`, false)
	f(LXDOptions{Port: 80, IPv6: true}, key(), `skipped 1: instance "w1": "eth0", inet6: it has no address yet`, false) // a link-local one is none
	f(LXDOptions{Port: 80, Project: "*"}, key(), "10.77.0.11:80 1/0/0 instance=w1 project=default", true)
	f(LXDOptions{Port: 80}, func(i *lxdInstance, _ *lxdState) { i.Location = "member3" }, "10.77.0.11:80 1/0/0 member3 instance=w1", true)
	f(LXDOptions{Port: 80}, func(_ *lxdInstance, s *lxdState) { s.Network = nil }, `instance "w1": the state of one that runs says nothing`, true)
	f(LXDOptions{Port: 80}, func(_ *lxdInstance, s *lxdState) { s.Network["eth0"].Addresses[0].Address = "x" }, `skipped 1: instance "w1": on "eth0" it has the address "x"`, true)
}

// TestLXDLostMember: what a cluster does not know of an instance is not that it is gone.
func TestLXDLostMember(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := lxdServer(t)
	l := newTestLXD(t, LXDOptions{URL: p.unix(t), Port: 8080})
	lost := ok(strings.ReplaceAll(string(body(t, "lxd/instances.http")), `"status":"Running"`, `"status":"Error"`))
	p.set("/1.0/instances", lost)
	fetch(t, l, "") // never seen
	p.set("/1.0/instances", answer{bytes: recording(t, "lxd/instances.http")})
	fetch(t, l, lxdList)
	p.set("/1.0/instances", lost)
	for range 3 {
		fetch(t, l, lxdList)
	}
	p.set("/1.0/instances", ok(`{"type":"sync","metadata":[]}`))
	fetch(t, l, "")
	p.set("/1.0/instances", lost)
	fetch(t, l, "")
}

// TestLXDAddressComesLater: no event tells it.
func TestLXDAddressComesLater(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := lxdServer(t)
	none := strings.ReplaceAll(string(body(t, "lxd/state-w1.http")), `"scope":"global"`, `"scope":"link"`)
	p.set("/1.0/instances/w1/state", ok(none), answer{bytes: recording(t, "lxd/state-w1.http")})
	p.set("/1.0/events", answer{websocket: true, hold: true})
	l := newTestLXD(t, LXDOptions{URL: p.unix(t), Port: 8080})
	lists := watchedUntil(t, l, lxdList)
	want := []string{`10.77.0.12:8080 4/0/0 instance=w2, skipped 1: instance "w1": "eth0", inet: it has no address yet`, lxdList}
	if !slices.Equal(lists, want) {
		t.Errorf("got %q", lists)
	}
}

func TestLXDBadMoments(t *testing.T) {
	lbtest.CheckLeaks(t)
	frame := func(text string) []byte {
		head := []byte{0x81, 126, byte(len(text) >> 8), byte(len(text))}
		return append(head, text...)
	}
	huge := []byte{0x81, 127, 0, 0, 0, 0, 0, 0x20, 0, 0} // says that 2 MiB follow
	for _, c := range []struct {
		path         string
		say          answer
		lists        []string
		reason, want string
	}{
		{"/1.0/events", answer{bytes: recording(t, "lxd/gone.http")}, nil, ReasonStatus, "status 404"},
		{"/1.0/events", answer{hold: true}, nil, ReasonTimeout, "opening the stream: no answer within 300ms"},
		{"/1.0/events", ok("{}"), nil, ReasonStatus, "status 200"},
		{"/1.0/events", answer{bytes: frame("garbage"), websocket: true, hold: true}, []string{lxdList}, ReasonDecode, "invalid character"},
		{"/1.0/events", answer{bytes: frame("{}"), websocket: true, hold: true}, []string{lxdList}, ReasonDecode, "without type"},
		{"/1.0/events", answer{bytes: frame(`{"type":"lifecycle"}`), websocket: true, hold: true}, []string{lxdList}, ReasonDecode, "unexpected end"},
		{"/1.0/events", answer{bytes: append(huge, make([]byte, 2<<20)...), websocket: true, hold: true}, []string{lxdList}, ReasonTooLarge, "more than 1048576 bytes"},
		{"/1.0/events", answer{bytes: []byte("no frame at all"), websocket: true, hold: true}, []string{lxdList}, ReasonOther, "the stream was cut"},
		{"/1.0/instances", answer{bytes: recording(t, "lxd/gone.http")}, nil, ReasonStatus, "status 404"},
		{"/1.0/instances", answer{hold: true}, nil, ReasonTimeout, "listing: no answer within 300ms"},
		{"/1.0/instances", ok("null"), nil, ReasonDecode, `got an answer of type ""`},
		{"/1.0/instances", ok(`{"type":"sync","metadata":null}`), nil, ReasonDecode, `want sync, with metadata`},
		{"/1.0/instances", ok(`{"type":"sync","metadata":{}}`), nil, ReasonDecode, "cannot unmarshal"},
		{"/1.0/instances", ok(strings.Repeat(" ", 5<<20)), nil, ReasonTooLarge, "more than 4194304 bytes"},
		{"/1.0/instances/w2/state", ok("garbage"), nil, ReasonDecode, "invalid character"},
		{"/1.0/instances/w2/state", answer{bytes: []byte("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n")}, nil, ReasonStatus, "status 500"},
	} {
		p := lxdServer(t)
		p.set("/1.0/events", answer{websocket: true, hold: true})
		p.set(c.path, c.say)
		l := newTestLXD(t, LXDOptions{URL: p.unix(t), Port: 8080})
		if c.reason == ReasonTimeout {
			l.patience = 300 * time.Millisecond
		}
		lists, err := watched(t, l, 10*time.Second)
		if !slices.Equal(lists, c.lists) {
			t.Errorf("%s: got %q; want %q", c.want, lists, c.lists)
		}
		wantEnd(t, err, c.reason, c.want)
	}
}

func TestLXDCutAnywhere(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := lxdServer(t)
	l := newTestLXD(t, LXDOptions{URL: p.unix(t), Port: 8080})
	whole := recording(t, "lxd/events.frames")
	for n := 0; n < len(whole); n += 97 {
		p.set("/1.0/events", answer{bytes: whole[:n], websocket: true, slow: n%2 == 0})
		if lists, err := watched(t, l, 10*time.Second); err == nil || len(lists) != 1 || lists[0] != lxdList {
			t.Fatalf("cut at %d: %q %v", n, lists, err)
		}
	}
	whole = recording(t, "lxd/instances.http")
	for n := 0; n < len(whole)-1; n += 89 {
		p.set("/1.0/instances", answer{bytes: whole[:n]})
		if list, err := l.Fetch(t.Context()); err == nil || len(list.Backends) > 0 {
			t.Fatalf("cut at %d: %s", n, show(list))
		}
	}
}

// TestLXDTrust is the way by https: which server it is, and that the password is sent to that one only, once.
func TestLXDTrust(t *testing.T) {
	lbtest.CheckLeaks(t)
	var trusted atomic.Bool
	var posted atomic.Int64
	sv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/1.0" && trusted.Load():
			fmt.Fprint(w, `{"type":"sync","metadata":{"auth":"trusted"}}`)
		case r.URL.Path == "/1.0":
			fmt.Fprint(w, `{"type":"sync","metadata":{"auth":"untrusted"}}`)
		case r.URL.Path == "/1.0/certificates":
			var q struct{ Type, Password string }
			_ = json.NewDecoder(r.Body).Decode(&q)
			posted.Add(1)
			if q.Password != "s3cret" || q.Type != "client" || r.Method != http.MethodPost {
				w.WriteHeader(http.StatusForbidden)
			}
			trusted.Store(q.Password == "s3cret")
		case trusted.Load() && r.URL.Path == "/1.0/instances":
			fmt.Fprint(w, `{"type":"sync","metadata":[]}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	sv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	sv.StartTLS()
	t.Cleanup(sv.Close)
	cert, key := lbtest.NewCA(t).Issue(lbtest.Leaf{Names: []string{"lb"}})
	sum := sha256.Sum256(sv.Certificate().Raw)
	o := LXDOptions{URL: sv.URL, Port: 80, Fingerprint: hex.EncodeToString(sum[:]), TLS: HTTPTLS{Cert: lbtest.Files(t, "c.pem", cert), Key: lbtest.Files(t, "c.key", key)}}
	fetchFails(t, newTestLXD(t, o), ReasonStatus, "status 403")
	o.Password = Secret{Value: "s3cret-not"}
	fetchFails(t, newTestLXD(t, o), ReasonStatus, "the password was not taken: status 403")
	o.Password = Secret{Value: "s3cret"}
	o.Fingerprint = strings.Repeat("00", 32)
	before := posted.Load()
	fetchFails(t, newTestLXD(t, o), ReasonRefused, "fingerprint")
	o.Fingerprint = ""
	fetchFails(t, newTestLXD(t, o), ReasonOther, "certificate")
	if posted.Load() != before {
		t.Error("the password went to a server that was not known")
	}
	o.TLS.CA = lbtest.Files(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sv.Certificate().Raw}))
	for range 3 {
		fetch(t, newTestLXD(t, o), "")
	}
	if n := posted.Load() - before; n != 1 {
		t.Errorf("the password was sent %d times", n)
	}
}

func TestLXDOptionsAreChecked(t *testing.T) {
	cert, key := lbtest.NewCA(t).Issue(lbtest.Leaf{Names: []string{"lb"}})
	files := HTTPTLS{Cert: lbtest.Files(t, "c.pem", cert), Key: lbtest.Files(t, "c.key", key)}
	for _, o := range []LXDOptions{
		{URL: "http://h:1"}, {URL: "https://h:1"}, {URL: "unix://rel"}, {URL: "https://u:s3cret@h", TLS: files}, {URL: "ftp://u:s3cret@h"}, {TLS: files},
		{Fingerprint: "aa"}, {Password: Secret{Value: "s3cret"}}, {URL: "https://h:1", TLS: files, Fingerprint: "aa"}, {Port: 70000}, {Value: "a"}, {Resync: 1},
		{Project: "a\n"}, {MaxBytes: -1},
	} {
		if _, err := NewLXD(o); err == nil || !strings.HasPrefix(err.Error(), "lxd: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	l := newTestLXD(t, LXDOptions{Key: "user.a", Value: "b", Project: "p"})
	if s := l.String(); !strings.HasPrefix(s, "lxd:unix:///var/lib/lxd/unix.socket/p user.a=b …") {
		t.Error(s)
	}
}

// FuzzLXD reads any bytes as each of the answers.
func FuzzLXD(f *testing.F) {
	f.Add(body(f, "lxd/instances.http"), body(f, "lxd/state-w1.http"), []byte(`{"type":"lifecycle","metadata":{"action":"instance-started"}}`))
	l, err := newLXD(LXDOptions{URL: "unix:///s", Port: 80, PortKey: "user.port", InterfaceKey: "user.nic", Project: "*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, instances, state, event []byte) {
		_, _ = decodeLifecycle(event)
		var all []lxdInstance
		var s lxdState
		if decodeMetadata(instances, &all) != nil || decodeMetadata(state, &s) != nil {
			return
		}
		states := make([]*lxdState, len(all))
		for i := range states {
			states[i] = &s
		}
		list, _, _ := l.backends(all, states)
		for i := range list.Backends {
			if err := list.Backends[i].Check(); err != nil {
				t.Error(err)
			}
		}
	})
}
