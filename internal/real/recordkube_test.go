//go:build real

package real

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
	"awe4lb/internal/lbtest"
)

// kubeRecorder stands between a source and the API server and writes down what they say, in the form of
// discovery/testdata/kubernetes/README.md.
type kubeRecorder struct {
	c  *kubeWorld
	sv *httptest.Server

	mu        sync.Mutex
	cond      *sync.Cond
	closed    bool // requests wait
	waiting   int
	exchanges []*kubeExchange
}

type kubeExchange struct {
	request string
	status  int
	lines   []string
	end     string
}

func newKubeRecorder(t *testing.T, c *kubeWorld) *kubeRecorder {
	rec := &kubeRecorder{c: c}
	rec.cond = sync.NewCond(&rec.mu)
	rec.sv = httptest.NewServer(rec)
	t.Cleanup(rec.sv.Close)
	return rec
}

// gate has requests wait, or go on.
func (rec *kubeRecorder) gate(closed bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.closed = closed
	rec.cond.Broadcast()
}

// count returns how many requests there were, those that wait among them, and lines of the last.
func (rec *kubeRecorder) count() (exchanges, waiting, lines int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if n := len(rec.exchanges); n > 0 {
		lines = len(rec.exchanges[n-1].lines)
	}
	return len(rec.exchanges), rec.waiting, lines
}

func (rec *kubeRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec.mu.Lock()
	rec.waiting++
	for rec.closed {
		rec.cond.Wait()
	}
	rec.waiting--
	x := &kubeExchange{request: r.URL.RequestURI(), end: "open"}
	rec.exchanges = append(rec.exchanges, x)
	rec.mu.Unlock()

	req, _ := http.NewRequestWithContext(r.Context(), "GET", rec.c.api+r.URL.RequestURI(), nil)
	req.Header.Set("Authorization", "Bearer "+kubeToken)
	res, err := kubeClient.Do(req)
	if err != nil {
		rec.ended(x, "cut")
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	rec.mu.Lock()
	x.status = res.StatusCode
	rec.mu.Unlock()
	w.WriteHeader(res.StatusCode)
	flush := http.NewResponseController(w).Flush
	_ = flush()
	lines := bufio.NewReaderSize(res.Body, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			rec.mu.Lock()
			x.lines = append(x.lines, slim(line))
			rec.mu.Unlock()
			_, _ = w.Write(line)
			_ = flush()
		}
		if err != nil {
			if err == io.EOF {
				rec.ended(x, "eof")
				return
			}
			if r.Context().Err() == nil {
				rec.ended(x, "cut")
			}
			panic(http.ErrAbortHandler)
		}
	}
}

func (rec *kubeRecorder) ended(x *kubeExchange, how string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	x.end = how
}

// slim leaves out what is long and not read: who set which field.
func slim(line []byte) string {
	var v any
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return string(bytes.TrimSpace(line))
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case object:
			delete(v, "managedFields")
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(v)
	b, _ := json.Marshal(v)
	return string(b)
}

func (rec *kubeRecorder) save(t *testing.T, name string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var b bytes.Buffer
	for _, x := range rec.exchanges {
		fmt.Fprintf(&b, "> %s\n", x.request)
		if x.status != 0 {
			fmt.Fprintf(&b, "< %d\n", x.status)
		}
		for _, l := range x.lines {
			fmt.Fprintln(&b, l)
		}
		fmt.Fprintf(&b, "= %s\n", x.end)
	}
	save(t, "kubernetes/"+name, b.Bytes())
}

// through has a source follow through the kubeRecorder and returns what waits for its next list, and for its end.
func through(t *testing.T, rec *kubeRecorder, o discovery.KubernetesOptions) (want func(n int), ended <-chan error) {
	o.URL, o.Service, o.Port = rec.sv.URL, "web", "http"
	s, err := discovery.NewKubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	lists, end := make(chan discovery.List, 100), make(chan error, 1)
	go func() { end <- s.Watch(ctx, func(l discovery.List) { lists <- l }) }()
	t.Cleanup(cancel)
	return func(n int) {
		t.Helper()
		select {
		case l := <-lists:
			if len(l.Backends) != n {
				t.Fatalf("got %v; want %d", entries(l.Backends), n)
			}
		case err := <-end:
			t.Fatal(err)
		case <-time.After(30 * time.Second):
			t.Fatalf("no list; want %d", n)
		}
	}, end
}

// recordKubeStream records what happens to slices, to a watch that ends by its timeout, and to one that a crash ends; the
// server is back with the history forgotten when it is asked for again.
func recordKubeStream(t *testing.T) {
	c := newKube(t)
	rec := newKubeRecorder(t, c)
	c.do("POST", slicesPath, slice("other", "other-1", endpoint("10.9.0.1", "ready")))
	c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "unknown"), endpoint("10.0.0.3", "unready")))
	want, ended := through(t, rec, discovery.KubernetesOptions{Wait: 8 * time.Second})
	want(2)
	lbtest.Eventually(t, "a watch", func() bool { n, _, _ := rec.count(); return n == 2 })
	c.do("POST", slicesPath, slice("web", "web-2", endpoint("10.0.0.4", "ready")))
	want(3)
	c.do("POST", slicesPath, slice("web", "web-3-v6", endpoint("fd00::4", "ready")))
	want(4)
	c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "draining"), endpoint("10.0.0.2", "ready")))
	want(4)
	c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready")))
	want(3)
	c.do("DELETE", slicesPath+"/web-2", nil)
	want(2)
	lbtest.EventuallyIn(t, 20*time.Second, "the next watch", func() bool { n, _, _ := rec.count(); return n == 3 })
	c.do("POST", slicesPath, slice("web", "web-2", endpoint("10.0.0.4", "ready")))
	want(3)
	rec.gate(true)
	c.stop(syscall.SIGKILL)
	lbtest.Eventually(t, "the watch after the crash", func() bool { _, waiting, _ := rec.count(); return waiting == 1 })
	c.start()
	c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready"), endpoint("10.0.0.5", "ready")))
	c.compact()
	c.stop(syscall.SIGKILL)
	c.start()
	rec.gate(false)
	want(4)
	lbtest.Eventually(t, "a watch after the list", func() bool { n, _, lines := rec.count(); return n == 6 && lines == 0 })
	c.do("DELETE", slicesPath+"/web-1", nil)
	want(2)
	c.stop(syscall.SIGKILL)
	select {
	case err := <-ended:
		t.Log(err)
	case <-time.After(30 * time.Second):
		t.Fatal("goes on without a server")
	}
	rec.save(t, "stream.txt")
}

// recordKubePages records a list whose second page comes when its version is forgotten.
func recordKubePages(t *testing.T) {
	c := newKube(t)
	rec := newKubeRecorder(t, c)
	for i := range 52 {
		c.do("POST", slicesPath, slice("web", fmt.Sprintf("web-%02d", i), object{"addresses": []string{fmt.Sprintf("10.0.1.%d", i)}}))
	}
	first, _ := rec.page(t, "")
	if _, status := rec.page(t, first); status != http.StatusOK {
		t.Fatal(status)
	}

	// Again, with the server restarted and etcd compacted between the two.
	c.do("DELETE", slicesPath+"/web-51", nil)
	first, _ = rec.page(t, "")
	c.do("DELETE", slicesPath+"/web-00", nil)
	c.stop(syscall.SIGKILL)
	c.compact()
	c.start()
	if _, status := rec.page(t, first); status != http.StatusGone {
		t.Fatalf("the forgotten page has the status %d", status)
	}
	rec.save(t, "pages.txt")
}

// page asks for a page as a source does and returns its continue.
func (rec *kubeRecorder) page(t *testing.T, next string) (string, int) {
	query := url.Values{"labelSelector": {"kubernetes.io/service-name=web"}, "limit": {"50"}}
	if next != "" {
		query.Set("continue", next)
	}
	res, err := http.Get(rec.sv.URL + slicesPath + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var page struct{ Metadata struct{ Continue string } }
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
		t.Fatal(err)
	}
	return page.Metadata.Continue, res.StatusCode
}

// recordKubeNodes records services, nodes and slices for NodePort.
func recordKubeNodes(t *testing.T) {
	c := newKube(t)
	rec := newKubeRecorder(t, c)
	c.do("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web"},
		"spec": object{"type": "NodePort", "ports": []object{{"name": "http", "port": 80, "nodePort": 30080}, {"name": "metrics", "port": 9090, "nodePort": 30090}}}})
	c.node("n1", "10.1.0.1", "True")
	c.node("n2", "10.1.0.2", "True")
	c.node("n3", "10.1.0.3", "False")
	c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "ready")))
	want, _ := through(t, rec, discovery.KubernetesOptions{NodePort: true})
	want(2)
	lbtest.Eventually(t, "watches", func() bool { n, _, _ := rec.count(); return n == 6 })
	c.node("n3", "10.1.0.3", "True")
	c.do("PATCH", "/api/v1/namespaces/default/services/web", object{"spec": object{"externalTrafficPolicy": "Local"}})
	c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "ready")))
	c.do("DELETE", "/api/v1/nodes/n2", nil)
	lbtest.Eventually(t, "lines", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		n := 0
		for _, x := range rec.exchanges {
			n += len(x.lines)
		}
		return n >= 3+4
	})
	rec.save(t, "nodes.txt")
}
