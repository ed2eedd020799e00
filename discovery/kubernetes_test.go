package discovery

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// exchange is one of a recording: testdata/kubernetes/README.md.
type exchange struct {
	request string
	status  int // 0 = refused
	lines   []string
	end     string // eof, cut, or open: it went on
	used    bool
}

func readRecording(t testing.TB, name string) []*exchange {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	var all []*exchange
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		switch {
		case strings.HasPrefix(line, "> "):
			all = append(all, &exchange{request: line[2:]})
		case strings.HasPrefix(line, "< "):
			if _, err := fmt.Sscan(line[2:], &all[len(all)-1].status); err != nil {
				t.Fatal(err)
			}
		case strings.HasPrefix(line, "= "):
			all[len(all)-1].end = line[2:]
		default:
			all[len(all)-1].lines = append(all[len(all)-1].lines, line)
		}
	}
	return all
}

// apiserver plays a recording: each request gets the first answer to it that was not given yet. Lines of a watch wait for
// step; so does its end.
type apiserver struct {
	*httptest.Server
	steps chan struct{}

	mu        sync.Mutex
	exchanges []*exchange
	tokens    []string // that requests came with
	unknown   []string // requests that are not in the recording
}

func serveKubernetes(t *testing.T, exchanges []*exchange) *apiserver {
	a := &apiserver{exchanges: exchanges, steps: make(chan struct{})}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
		if len(a.unknown) > 0 {
			t.Errorf("asked for what was not recorded: %s", a.unknown)
		}
	})
	return a
}

// ca is a file of the authority of the server.
func (a *apiserver) ca(t *testing.T) string {
	return lbtest.Files(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))
}

func (a *apiserver) take(r *http.Request) *exchange {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens = append(a.tokens, r.Header.Get("Authorization"))
	i := slices.IndexFunc(a.exchanges, func(x *exchange) bool { return !x.used && x.request == r.URL.RequestURI() })
	if i < 0 {
		a.unknown = append(a.unknown, r.URL.RequestURI())
		return nil
	}
	a.exchanges[i].used = true
	return a.exchanges[i]
}

func (a *apiserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := a.take(r)
	if x == nil || x.status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(x.status)
	flush := http.NewResponseController(w).Flush
	_ = flush()
	for i := range len(x.lines) + 1 {
		if i == len(x.lines) && x.end == "open" {
			<-r.Context().Done()
			return
		}
		if x.status == 200 && r.URL.Query().Has("watch") {
			select {
			case <-a.steps:
			case <-r.Context().Done():
				return
			}
		}
		if i < len(x.lines) {
			_, _ = w.Write([]byte(x.lines[i] + "\n"))
			_ = flush()
		}
	}
	if x.end == "cut" {
		_, _ = w.Write([]byte(`{"type":"MODIFIED","object":{"metadata":{"na`))
		_ = flush()
		panic(http.ErrAbortHandler)
	}
}

func (a *apiserver) used() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.exchanges {
		if x.used {
			n++
		}
	}
	return n
}

// kubeWatch is a source that is being watched.
type kubeWatch struct {
	t     *testing.T
	a     *apiserver
	lists chan List
	ended chan error
}

func (a *apiserver) follow(t *testing.T, o KubernetesOptions) *kubeWatch {
	t.Helper()
	o.URL, o.TLS.CA, o.Token = a.URL, a.ca(t), Secret{Value: "s3cret"}
	s, err := NewKubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	return watchSource(t, a, s)
}

func watchSource(t *testing.T, a *apiserver, s Watcher) *kubeWatch {
	f := &kubeWatch{t: t, a: a, lists: make(chan List, 100), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.ended <- s.Watch(ctx, func(l List) { f.lists <- l })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// step lets the server say its next line.
func (f *kubeWatch) step() {
	f.t.Helper()
	select {
	case f.a.steps <- struct{}{}:
	case err := <-f.ended:
		f.t.Fatal(err)
	case <-time.After(20 * time.Second):
		f.t.Fatal("nobody watches")
	}
}

func (f *kubeWatch) want(want string) {
	f.t.Helper()
	select {
	case l := <-f.lists:
		if got := show(l); got != want {
			f.t.Fatalf("got  %s\nwant %s", got, want)
		}
	case err := <-f.ended:
		f.t.Fatal(err)
	case <-time.After(20 * time.Second):
		f.t.Fatalf("nothing; want %s", want)
	}
}

func (f *kubeWatch) wantEnd(reason, want string) {
	f.t.Helper()
	select {
	case err := <-f.ended:
		if ReasonOf(err) != reason || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			f.t.Fatalf("got %v (%s); want %s: %s", err, ReasonOf(err), reason, want)
		}
	case <-time.After(20 * time.Second):
		f.t.Fatalf("goes on; want %s", want)
	}
	if n := len(f.lists); n > 0 {
		f.t.Errorf("%d lists nobody wanted", n)
	}
}

// pod is how show writes an endpoint of a recording.
func pod(ip string, weight int) string {
	address := netip.AddrPortFrom(netip.MustParseAddr(ip), 8080)
	return fmt.Sprintf("%s %d/0/0 a node=n1 pod=pod-%s", address, weight, strings.NewReplacer(".", "-", ":", "-").Replace(ip))
}

func pods(all ...string) string { return strings.Join(all, ", ") }

// TestKubernetesStream goes through the life of a service as a real server told it.
func TestKubernetesStream(t *testing.T) {
	lbtest.CheckLeaks(t)
	a := serveKubernetes(t, readRecording(t, "stream.txt"))
	f := a.follow(t, KubernetesOptions{Service: "web", Port: "http", Wait: 8 * time.Second})
	f.want(pods(pod("10.0.0.1", 1), pod("10.0.0.2", 1))) // ready, and not said to be anything
	f.step()
	f.want(pods(pod("10.0.0.1", 1), pod("10.0.0.2", 1), pod("10.0.0.4", 1)))
	f.step()
	f.want(pods(pod("10.0.0.1", 1), pod("10.0.0.2", 1), pod("10.0.0.4", 1), pod("fd00::4", 1)))
	f.step()
	f.want(pods(pod("10.0.0.1", 0), pod("10.0.0.2", 1), pod("10.0.0.4", 1), pod("fd00::4", 1)))
	f.step()
	f.want(pods(pod("10.0.0.2", 1), pod("10.0.0.4", 1), pod("fd00::4", 1)))
	f.step()
	f.want(pods(pod("10.0.0.2", 1), pod("fd00::4", 1)))
	f.step() // bookmarks
	f.step()
	f.step() // the watch is over, and asked for again
	f.step()
	f.want(pods(pod("10.0.0.2", 1), pod("10.0.0.4", 1), pod("fd00::4", 1)))
	f.step() // cut
	f.step() // 410 Gone
	f.want(pods(pod("10.0.0.2", 1), pod("10.0.0.4", 1), pod("10.0.0.5", 1), pod("fd00::4", 1)))
	f.step()
	f.want(pods(pod("10.0.0.4", 1), pod("fd00::4", 1)))
	f.step() // cut, and the server is gone
	f.wantEnd(ReasonOther, "watch endpointslices in the namespace default: ")
	if n := a.used(); n != len(a.exchanges) {
		t.Errorf("asked %d of %d times", n, len(a.exchanges))
	}
	if slices.ContainsFunc(a.tokens, func(s string) bool { return s != "Bearer s3cret" }) {
		t.Errorf("asked with %q", a.tokens)
	}
}

func TestKubernetesFamily(t *testing.T) {
	for family, want := range map[Family]string{IPv4: "10.0.0.1:8080", IPv6: ""} {
		a := serveKubernetes(t, readRecording(t, "stream.txt"))
		s, err := NewKubernetes(KubernetesOptions{Service: "web", Port: "8080", Family: family, URL: a.URL, TLS: HTTPTLS{CA: a.ca(t)}})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Fetch(t.Context())
		if err != nil || !strings.HasPrefix(show(list), want) || (want == "") != (len(list.Backends) == 0) {
			t.Errorf("%v %s; want %s", err, show(list), want)
		}
	}
}

// TestKubernetesPages reads a list of two pages, and begins anew when the second is forgotten.
func TestKubernetesPages(t *testing.T) {
	lbtest.CheckLeaks(t)
	all := readRecording(t, "pages.txt")
	whole, again := all[:2], all[2:]
	// The forgotten pages come first; then the list as it was whole.
	a := serveKubernetes(t, append(slices.Clone(again), whole...))
	s, err := NewKubernetes(KubernetesOptions{Service: "web", Port: "http", URL: a.URL, TLS: HTTPTLS{CA: a.ca(t)}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Fetch(t.Context())
	if err != nil || len(list.Backends) != 52 || a.used() != 4 {
		t.Errorf("%d backends by %d requests, %v", len(list.Backends), a.used(), err)
	}
}

func TestKubernetesNodePort(t *testing.T) {
	lbtest.CheckLeaks(t)
	a := serveKubernetes(t, readRecording(t, "nodes.txt"))
	f := a.follow(t, KubernetesOptions{Service: "web", Port: "http", NodePort: true, Wait: 5 * time.Minute})
	f.want("10.1.0.1:30080 1/0/0 z-n1 node=n1, 10.1.0.2:30080 1/0/0 z-n2 node=n2")
	// Three watches say four things in any order: a third node is ready, only nodes with endpoints serve, there is one on n1,
	// and n2 is gone.
	for range 4 {
		f.step()
	}
	lbtest.Eventually(t, "the last list", func() bool {
		select {
		case l := <-f.lists:
			return show(l) == "10.1.0.1:30080 1/0/0 z-n1 node=n1"
		default:
			return false
		}
	})
}

// answers is a server that says what the test wants, in order: a JSON document for a list, lines for a watch.
func answers(t *testing.T, all ...exchange) *apiserver {
	const list, watch = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweb&limit=50",
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?allowWatchBookmarks=true&labelSelector=kubernetes.io%2Fservice-name%3Dweb&resourceVersion=%s&timeoutSeconds=300&watch=1"
	var made []*exchange
	for _, x := range all {
		if x.request == "" {
			x.request = list
		} else {
			x.request = strings.Replace(watch, "%s", x.request, 1)
		}
		if x.status == 0 {
			x.status = 200
		}
		made = append(made, &x)
	}
	return serveKubernetes(t, made)
}

const someSlice = `{"metadata":{"name":"web-1","namespace":"default","resourceVersion":"5"},"addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"]}]}`

// What a real server does only in bad times.
func TestKubernetesBadMoments(t *testing.T) {
	lbtest.CheckLeaks(t)
	list := exchange{lines: []string{`{"metadata":{"resourceVersion":"7"},"items":[` + someSlice + `]}`}}
	const one = "10.0.0.1:80 1/0/0"
	for _, e := range []struct {
		name, reason, want string
		steps              int
		watch              exchange
		again              bool // it lists and watches anew
	}{
		{name: "gone as a status", watch: exchange{status: 410}, again: true},
		{name: "another error", watch: exchange{lines: []string{`{"type":"ERROR","object":{"code":504,"reason":"Timeout","message":"Too large resource version"}}`}}, steps: 1, reason: ReasonStatus, want: `status 504, "Timeout"`},
		{name: "over at once", steps: 1, reason: ReasonOther, want: "the server ends it at once"},
		{name: "unauthorized", watch: exchange{status: 401, lines: []string{"Bearer s3cret"}}, reason: ReasonStatus, want: "does not take these credentials"},
		{name: "forbidden", watch: exchange{status: 403}, reason: ReasonStatus, want: "want the right to list and watch"},
		{name: "unavailable", watch: exchange{status: 503}, reason: ReasonStatus, want: "status 503"},
		{name: "an unknown event", watch: exchange{lines: []string{`{"type":"MOVED","object":` + someSlice + `}`}}, steps: 1, reason: ReasonDecode, want: `got the event "MOVED"`},
		{name: "no JSON", watch: exchange{lines: []string{`<html>`}}, steps: 1, reason: ReasonDecode, want: "invalid character"},
		{name: "no version", watch: exchange{lines: []string{`{"type":"ADDED","object":{}}`}}, steps: 1, reason: ReasonDecode, want: "without a resourceVersion"},
		{name: "another type", watch: exchange{lines: []string{`{"type":"ADDED","object":7}`}}, steps: 1, reason: ReasonDecode, want: "cannot unmarshal number"},
		{name: "too long", watch: exchange{lines: []string{`{"type":"ADDED","object":{"x":"` + strings.Repeat("x", 5000) + `"}}`}}, steps: 1, reason: ReasonTooLarge, want: "more than 4000 bytes"},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.watch.request = "7"
			a := answers(t, list, e.watch, list, exchange{request: "7", lines: []string{`{"type":"DELETED","object":` + someSlice + `}`}})
			f := a.follow(t, KubernetesOptions{Service: "web", MaxBytes: 4000})
			f.want(one)
			for range e.steps {
				f.step()
			}
			if e.again {
				f.want(one)
				f.step()
				f.want("")
				return
			}
			f.wantEnd(e.reason, e.want)
		})
	}
	t.Run("gone again and again", func(t *testing.T) {
		var all []exchange
		for range kubeGone + 1 {
			all = append(all, list, exchange{request: "7", status: 410})
		}
		f := answers(t, all...).follow(t, KubernetesOptions{Service: "web"})
		for range kubeGone + 1 {
			f.want(one)
		}
		f.wantEnd(ReasonOther, "too old")
	})
	t.Run("a long page", func(t *testing.T) {
		long := exchange{lines: []string{`{"metadata":{"resourceVersion":"7"},"items":[{"x":"` + strings.Repeat("x", 2000) + `"}]}`}}
		fetchFails(t, source(t, answers(t, long), KubernetesOptions{Service: "web", MaxBytes: 1100}), ReasonTooLarge, "more than 1100 bytes")
	})
	t.Run("too many objects", func(t *testing.T) {
		var events []string
		for i := range 40 {
			events = append(events, strings.Replace(`{"type":"ADDED","object":`+someSlice+`}`, "web-1", fmt.Sprint("web-", i), 1))
		}
		f := answers(t, list, exchange{request: "7", lines: []string{strings.Join(events, "\n")}}).follow(t, KubernetesOptions{Service: "web", MaxBytes: 300})
		f.want(one)
		f.step()
		select {
		case err := <-f.ended:
			if ReasonOf(err) != ReasonTooLarge || !strings.Contains(err.Error(), "more than 4800 bytes") {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("keeps what is too much")
		}
	})
}

func source(t *testing.T, a *apiserver, o KubernetesOptions) Source {
	o.URL, o.TLS.CA = a.URL, a.ca(t)
	s, err := NewKubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// endpointsOf makes a list of slices, as JSON.
func endpointsOf(t *testing.T, o KubernetesOptions, all ...string) string {
	t.Helper()
	var objects []*kubeSlice
	for i, s := range all {
		o, err := decodeObject[kubeSlice]([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		o.object.Metadata.Name = fmt.Sprint("s", i)
		objects = append(objects, o.object)
	}
	o.Service, o.URL = "web", "https://127.0.0.1"
	k, err := newKube(o)
	if err != nil {
		t.Fatal(err)
	}
	return show(k.endpoints(objects))
}

func TestEndpointSlices(t *testing.T) {
	v4 := func(ports string, endpoints ...string) string {
		return `{"addressType":"IPv4","ports":[` + ports + `],"endpoints":[` + strings.Join(endpoints, ",") + `]}`
	}
	const draining, leaving = `{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true}}`, `{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":false,"terminating":true}}`
	const ready, unready = `{"addresses":["10.0.0.1"]}`, `{"addresses":["10.0.0.1"],"conditions":{"ready":false}}`
	const http, dns = `{"name":"http","port":80}`, `{"name":"dns","port":53,"protocol":"UDP"}`
	for _, e := range []struct {
		name   string
		o      KubernetesOptions
		slices []string
		want   string
	}{
		{"nothing", KubernetesOptions{}, nil, ""},
		{"terminating ones get nothing new", KubernetesOptions{}, []string{v4(http, ready, draining, leaving)}, "10.0.0.1:80 1/0/0, 10.0.0.2:80 0/0/0, 10.0.0.3:80 0/0/0"},
		{"unless nothing else serves", KubernetesOptions{}, []string{v4(http, unready, draining, leaving)}, "10.0.0.2:80 1/0/0, 10.0.0.3:80 0/0/0"},
		{"twice, the better one counts", KubernetesOptions{}, []string{v4(http, unready), v4(http, ready), v4(http, `{"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true}}`)}, "10.0.0.1:80 1/0/0"},
		{"a pod of both families", KubernetesOptions{}, []string{`{"addressType":"IPv6","ports":[{"port":80}],"endpoints":[{"addresses":["fd00::1"],"targetRef":{"uid":"a"}},{"addresses":["fd00::2"],"targetRef":{"uid":"b"}}]}`,
			v4(http, `{"addresses":["10.0.0.1"],"targetRef":{"uid":"a"}}`)}, "10.0.0.1:80 1/0/0, [fd00::2]:80 1/0/0"},
		{"IPv6 of both", KubernetesOptions{Family: IPv6}, []string{`{"addressType":"IPv6","ports":[{"port":80}],"endpoints":[{"addresses":["fd00::1"],"targetRef":{"uid":"a"}}]}`,
			v4(http, `{"addresses":["10.0.0.1"],"targetRef":{"uid":"a"}}`)}, "[fd00::1]:80 1/0/0"},
		{"names", KubernetesOptions{}, []string{`{"addressType":"FQDN","ports":[{"port":80}],"endpoints":[{"addresses":["a.example"]}]}`}, `skipped 1: slice "s0": addresses of the type "FQDN"; want IPv4 or IPv6`},
		{"a port by name", KubernetesOptions{Port: "http"}, []string{v4(`{"name":"a","port":1},`+http, ready)}, "10.0.0.1:80 1/0/0"},
		{"a port by number", KubernetesOptions{Port: "80"}, []string{v4(`{"name":"a","port":1},`+http, ready)}, "10.0.0.1:80 1/0/0"},
		{"a port of UDP", KubernetesOptions{UDP: true}, []string{v4(dns+`,{"name":"dns-tcp","port":53}`, ready)}, "10.0.0.1:53 1/0/0"},
		{"any port", KubernetesOptions{Port: "8080"}, []string{`{"addressType":"IPv4","endpoints":[` + ready + `]}`}, "10.0.0.1:8080 1/0/0"},
		{"which port", KubernetesOptions{}, []string{v4(`{"name":"a","port":1},`+http, ready)}, `skipped 1: slice "s0": has the TCP ports "a:1, http:80"; want one of them in port`},
		{"no such port", KubernetesOptions{Port: "web"}, []string{v4(http, ready)}, `skipped 1: slice "s0": has the TCP ports "http:80"; want web`},
		{"no port of ours", KubernetesOptions{UDP: true}, []string{v4(http, ready)}, `skipped 1: slice "s0": has the UDP ports "none"; want one of them in port`},
		{"a placeholder", KubernetesOptions{}, []string{`{"addressType":"IPv4","ports":null,"endpoints":null}`}, ""},
		{"an address that is none", KubernetesOptions{}, []string{v4(http, ready, `{"addresses":["0.0.0.0"]}`, `{"addresses":[]}`)}, `10.0.0.1:80 1/0/0, skipped 2: slice "s0": endpoint 1: got 0.0.0.0; want an address that can be connected to`},
		{"weight and priority", KubernetesOptions{}, []string{`{"metadata":{"labels":{"awe4lb/weight":"7","awe4lb/priority":"2"}},"addressType":"IPv4","ports":[{"port":80}],"endpoints":[` + ready + `]}`}, "10.0.0.1:80 7/2/0"},
		{"a weight that is none", KubernetesOptions{}, []string{`{"metadata":{"labels":{"awe4lb/weight":"many"}},"addressType":"IPv4","ports":[{"port":80}],"endpoints":[` + ready + `]}`}, "10.0.0.1:80 1/0/0"},
	} {
		if got := endpointsOf(t, e.o, e.slices...); got != e.want {
			t.Errorf("%s:\ngot  %s\nwant %s", e.name, got, e.want)
		}
	}
}

func TestNodePorts(t *testing.T) {
	node := func(name, ip, more string) string {
		return `{"metadata":{"name":"` + name + `"` + more + `,"status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"` + ip + `"},{"type":"InternalIP","address":"fd00::1"}]}}`
	}
	service := `{"metadata":{"name":"web","namespace":"d"},"spec":{"type":"LoadBalancer","ports":[{"name":"http","port":80,"nodePort":30080}],"externalTrafficPolicy":"POLICY"}}`
	for _, e := range []struct {
		name, policy, slice string
		o                   KubernetesOptions
		nodes               []string
		want                string
	}{
		{name: "every node", nodes: []string{node("a", "10.1.0.1", "}"), node("b", "10.1.0.2", `,"labels":{"topology.kubernetes.io/zone":"z","awe4lb/weight":"5"}}`)},
			want: "10.1.0.1:30080 1/0/0 node=a, 10.1.0.2:30080 5/0/0 z node=b"},
		{name: "one that is about to go", nodes: []string{node("a", "10.1.0.1", "}"), node("b", "10.1.0.2", `,"deletionTimestamp":"2026-11-25T00:00:00Z"}`), node("c", "10.1.0.3", `},"spec":{"taints":[{"key":"ToBeDeletedByClusterAutoscaler"}]}`)},
			want: "10.1.0.1:30080 1/0/0 node=a, 10.1.0.2:30080 0/0/0 node=b, 10.1.0.3:30080 0/0/0 node=c"},
		{name: "one that is kept out", nodes: []string{node("a", "10.1.0.1", `,"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":""}}`)}},
		{name: "IPv6", o: KubernetesOptions{Family: IPv6}, nodes: []string{node("a", "10.1.0.1", "}")}, want: "[fd00::1]:30080 1/0/0 node=a"},
		{name: "another kind of address", o: KubernetesOptions{NodeAddress: "ExternalIP"}, nodes: []string{node("a", "10.1.0.1", "}")}, want: `skipped 1: node "a": has no address of the type ExternalIP and the family`},
		{name: "by a port that is not there", o: KubernetesOptions{Port: "8080"}, want: `skipped 1: service "web": has the TCP ports "http:80"; want 8080`},
		{name: "local", policy: "Local", nodes: []string{node("a", "10.1.0.1", "}"), node("b", "10.1.0.2", "}"), node("c", "10.1.0.3", "}")},
			slice: `{"nodeName":"a","addresses":["1.1.1.1"]},{"nodeName":"a","addresses":["1.1.1.2"]},{"nodeName":"a","addresses":["1.1.1.2"]},{"nodeName":"b","addresses":["1.1.1.3"],"conditions":{"ready":false,"terminating":true,"serving":true}}`,
			want:  "10.1.0.1:30080 2/0/0 node=a, 10.1.0.2:30080 0/0/0 node=b"},
	} {
		e.o.Service, e.o.URL, e.o.NodePort = "web", "https://127.0.0.1", true
		k, err := newKube(e.o)
		if err != nil {
			t.Fatal(err)
		}
		s, err := decodeObject[kubeService]([]byte(strings.Replace(service, "POLICY", e.policy, 1)))
		if err != nil {
			t.Fatal(err)
		}
		var nodes []*kubeNode
		for _, n := range e.nodes {
			o, err := decodeObject[kubeNode]([]byte(n))
			if err != nil {
				t.Fatal(n, err)
			}
			nodes = append(nodes, o.object)
		}
		sl, err := decodeObject[kubeSlice]([]byte(`{"metadata":{"namespace":"d","labels":{"kubernetes.io/service-name":"web"}},"endpoints":[` + e.slice + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := show(k.nodePorts([]*kubeService{s.object}, nodes, []*kubeSlice{sl.object})); got != e.want {
			t.Errorf("%s:\ngot  %s\nwant %s", e.name, got, e.want)
		}
	}
}

func TestKubernetesOptionsAreChecked(t *testing.T) {
	for _, o := range []KubernetesOptions{
		{}, {Service: "a", Selector: "b"}, {Service: "../nodes"}, {Selector: "a\n"}, {Service: "a", Namespace: "a/b"}, {Service: "a", Namespace: "*"},
		{Service: "a", Port: "0"}, {Service: "a", Port: "70000"}, {Service: "a", Port: "A b"}, {Service: "a", Family: 3}, {Service: "a", NodeAddress: "ExternalIP"},
		{Service: "a", NodePort: true, NodeAddress: "Hostname"}, {Service: "a", Wait: 1}, {Service: "a", MaxBytes: -1}, {Service: "a", Kubeconfig: "/a"},
		{Service: "a", URL: "https://a?b=c"}, {Service: "a", URL: "https://a:b@c"}, {Service: "a", URL: "ftp://a"},
	} {
		if o.URL == "" {
			o.URL = "https://127.0.0.1"
		}
		if s, err := NewKubernetes(o); err == nil || !strings.HasPrefix(err.Error(), "kubernetes: ") || s != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, o := range []KubernetesOptions{{Service: "a"}, {Service: "a", Context: "b"}, {Service: "a", Token: Secret{Value: "b"}}, {Service: "a", Kubeconfig: "a"}} {
		t.Setenv("KUBERNETES_SERVICE_HOST", "")
		if _, err := NewKubernetes(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	names := map[string]bool{}
	for _, o := range []KubernetesOptions{{Service: "a"}, {Service: "a", UDP: true}, {Service: "a", Port: "http"}, {Service: "a", Namespace: "b"}, {Service: "a", NodePort: true}, {Service: "a", Family: IPv6}, {Selector: "app=a"}} {
		o.URL, o.Token = "https://127.0.0.1:6443/k8s", Secret{Value: "s3cret"}
		s, err := NewKubernetes(o)
		if err != nil {
			t.Fatal(err)
		}
		if name := s.String(); names[name] || !strings.HasPrefix(name, "kubernetes:https://127.0.0.1:6443/k8s/") || strings.Contains(name, "s3cret") {
			t.Error(name)
		}
		names[s.String()] = true
	}
}

func FuzzKubernetes(f *testing.F) {
	for _, name := range []string{"stream.txt", "nodes.txt"} {
		for _, x := range readRecording(f, name) {
			for _, l := range x.lines {
				f.Add([]byte(l), "http")
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, port string) {
		k, err := newKube(KubernetesOptions{Service: "web", Port: port, URL: "https://127.0.0.1"})
		if err != nil {
			return
		}
		var slices []*kubeSlice
		var nodes []*kubeNode
		var services []*kubeService
		take := func(raw []byte) {
			if o, err := decodeObject[kubeSlice](raw); err == nil {
				slices = append(slices, o.object)
			}
			if o, err := decodeObject[kubeNode](raw); err == nil {
				nodes = append(nodes, o.object)
			}
			if o, err := decodeObject[kubeService](raw); err == nil {
				services = append(services, o.object)
			}
		}
		if page, err := decodeKubeList(b); err == nil {
			for _, item := range page.Items {
				take(item)
			}
		}
		r := newResource[kubeSlice](k, "/a", "", "b", nil, func() {})
		r.objects = map[string]kept[kubeSlice]{}
		var e kubeEvent
		if json.Unmarshal(b, &e) == nil {
			_ = r.event(e)
			take(e.Object)
		}
		var bytes int64
		for _, o := range r.objects {
			bytes += o.bytes
		}
		if bytes != r.bytes {
			t.Errorf("counted %d bytes of %d", r.bytes, bytes)
		}
		for _, list := range []List{k.endpoints(slices), k.nodePorts(services, nodes, slices)} {
			for i := range list.Backends {
				if err := list.Backends[i].Check(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
