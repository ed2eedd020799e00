//go:build real

package real

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// consulWorld is Consul, of one or more servers, each a process of its own. Instances are in the catalogue, each on a node of
// its own.
type consulWorld struct {
	t       *testing.T
	members []*process
	urls    []string
	data    []string // the folder of each
	lan     []string // the port of each for gossip
	asked   string   // whom the source asks: the first member, or an agent beside them
	token   string
	options discovery.ConsulOptions // for the source, beside url and service
	outside
}

const consulVersion = "1.22.3"

// newConsul starts n servers, with more on their command lines, and returns when one of them leads.
func newConsul(t *testing.T, n int, more ...string) *consulWorld {
	t.Helper()
	w := &consulWorld{t: t}
	for range n {
		w.lan = append(w.lan, freePort(t))
	}
	for i := range n {
		http, data := freePort(t), t.TempDir()
		args := []string{"-server", fmt.Sprintf("-bootstrap-expect=%d", n), "-server-port=" + freePort(t), "-serf-wan-port=-1"}
		w.members = append(w.members, w.process(fmt.Sprint("n", i), data, http, w.lan[i], append(args, more...)))
		w.urls, w.data = append(w.urls, "http://127.0.0.1:"+http), append(w.data, data)
	}
	w.asked = w.urls[0]
	w.start()
	return w
}

// process makes an agent, which is a server with the arguments for that.
func (w *consulWorld) process(name, data, http, lan string, args []string) *process {
	w.t.Helper()
	argv := []string{binary(w.t, "consul-"+consulVersion), "agent", "-node=" + name, "-data-dir=" + data, "-bind=127.0.0.1", "-client=127.0.0.1",
		"-disable-host-node-id", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-http-port=" + http, "-serf-lan-port=" + lan}
	for _, port := range w.lan {
		if port != lan {
			argv = append(argv, "-retry-join=127.0.0.1:"+port)
		}
	}
	p := &process{t: w.t, log: filepath.Join(shortDir(w.t), "log"), argv: append(argv, args...)}
	w.t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		if w.t.Failed() {
			w.t.Log(p.tail())
		}
	})
	return p
}

// agent starts one that is no server. From now on the source asks it.
func (w *consulWorld) agent() *process {
	w.t.Helper()
	http := freePort(w.t)
	p := w.process("agent", w.t.TempDir(), http, freePort(w.t), []string{"-retry-interval=1s"})
	w.asked = "http://127.0.0.1:" + http
	p.start()
	w.join()
	return p
}

// join has the agent know the server.
func (w *consulWorld) join() {
	w.t.Helper()
	until(w.t, "the agent joins the server", 30*time.Second, func() bool {
		req, err := http.NewRequest("PUT", w.asked+"/v1/agent/join/127.0.0.1:"+w.lan[0], nil)
		if err != nil {
			w.t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	until(w.t, "the agent knows a server", 30*time.Second, func() bool { _, ok := w.get(w.asked + "/v1/catalog/datacenters"); return ok })
}

// get returns the body of an answer that is good.
func (w *consulWorld) get(url string) ([]byte, bool) {
	res, err := client.Get(url)
	if err != nil {
		return nil, false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return b, err == nil && res.StatusCode == http.StatusOK
}

// leader returns which member leads, as all that run know it, or -1.
func (w *consulWorld) leader() int {
	of, asked := "", 0
	for i, p := range w.members {
		if p.cmd == nil {
			continue
		}
		var address string
		b, ok := w.get(w.urls[i] + "/v1/status/leader")
		if !ok || json.Unmarshal(b, &address) != nil || address == "" || asked > 0 && address != of {
			return -1
		}
		of, asked = address, asked+1
	}
	return slices.IndexFunc(w.members, func(p *process) bool {
		return p.cmd != nil && slices.Contains(p.argv, "-server-port="+of[strings.LastIndexByte(of, ':')+1:])
	})
}

// ready waits until one that runs leads the others, and what it knows can be read.
func (w *consulWorld) ready() {
	w.t.Helper()
	until(w.t, "a leader", time.Minute, func() bool { return w.leader() >= 0 })
	for i, p := range w.members {
		if p.cmd != nil {
			until(w.t, "consul answers", 30*time.Second, func() bool { _, ok := w.get(w.urls[i] + "/v1/catalog/datacenters"); return ok })
		}
	}
}

func (w *consulWorld) start() {
	w.t.Helper()
	for _, p := range w.members {
		if p.cmd == nil {
			p.start()
		}
	}
	w.ready()
}

func (w *consulWorld) stop(s syscall.Signal) {
	w.t.Helper()
	for _, p := range w.members {
		p.stop(s)
	}
}

// put asks one that runs, again while it cannot write, as when there was a leader only a moment ago, and returns the answer.
func (w *consulWorld) put(path string, body any) []byte {
	w.t.Helper()
	b, _ := json.Marshal(body)
	url := w.urls[slices.IndexFunc(w.members, func(p *process) bool { return p.cmd != nil })]
	var text []byte
	until(w.t, "consul writes "+path, 30*time.Second, func() bool {
		req, err := http.NewRequest("PUT", url+path, bytes.NewReader(b))
		if err != nil {
			w.t.Fatal(err)
		}
		if w.token != "" {
			req.Header.Set("X-Consul-Token", w.token)
		}
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		text, err = io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	})
	return text
}

// instance has instance n of web in the catalogue, with a status: passing, warning or critical.
func (w *consulWorld) instance(n, weight int, status string) string {
	w.t.Helper()
	at := w.at(n)
	a, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put("/v1/catalog/register", map[string]any{
		"Node": fmt.Sprint("web-", n), "Address": a.IP.String(),
		"Service": map[string]any{"ID": "web", "Service": "web", "Port": a.Port, "Tags": []string{"blue"}, "Weights": map[string]int{"Passing": weight, "Warning": 1}},
		"Check":   map[string]any{"CheckID": "service:web", "Name": "web", "ServiceID": "web", "Status": status},
	})
	return entry(at, weight)
}

func (w *consulWorld) add(n, weight int) string {
	w.t.Helper()
	return w.instance(n, weight, "passing")
}

func (w *consulWorld) change(n, weight int) string {
	w.t.Helper()
	return w.instance(n, weight, "passing")
}

func (w *consulWorld) remove(n int) {
	w.t.Helper()
	w.put("/v1/catalog/deregister", map[string]any{"Node": fmt.Sprint("web-", n)})
}

func (w *consulWorld) source() discovery.Source {
	o := w.options
	o.URL, o.Service, o.Wait = w.asked, "web", time.Second
	s, err := discovery.NewConsul(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *consulWorld) table() string {
	return fmt.Sprintf("kind = \"consul\"\nurl = %q\nservice = \"web\"\nwait = \"1s\"\n", w.asked)
}

func TestConsul(t *testing.T) { tell(t, newConsul(t, 1)).whole() }

// TestConsulChecks: what an instance's checks say, what is not believed, and a server that has lost its memory.
func TestConsulChecks(t *testing.T) {
	w := newConsul(t, 1)
	w.options = discovery.ConsulOptions{Tags: []string{"blue"}, Warning: true}
	w.instance(3, 1, "critical")
	s := tellStrictly(t, w, map[int]string{1: w.add(1, 1), 2: w.add(2, 1)})
	s.happens("another comes", func(now map[int]string) { now[4] = w.add(4, 1) })
	s.happens("one gets a weight", func(now map[int]string) { now[1] = w.change(1, 7) })
	s.happens("it warns, which has a weight of its own", func(now map[int]string) {
		w.instance(1, 7, "warning")
		now[1] = entry(w.at(1), 1)
	})
	s.happens("it is critical", func(now map[int]string) { w.instance(1, 7, "critical"); delete(now, 1) })
	s.happens("one goes", func(now map[int]string) { w.remove(4); delete(now, 4) })
	s.quiet("blocking queries end with nothing new", 3*time.Second)

	s.happens("the last one goes, which is not believed", func(map[int]string) { w.remove(2); s.state(discovery.Holding) })
	s.happens("two are there", func(now map[int]string) { w.add(2, 1); now[1] = w.add(1, 1) })
	for n := 5; n <= 6; n++ {
		s.outage("the server is killed", syscall.SIGKILL, func() {})
		s.happens("another comes", func(now map[int]string) { now[n] = w.add(n, 1) })
	}

	// It comes back without its memory: the index goes back and nothing is there, which is not believed. One of the four is
	// too few to be believed at once, two are not.
	w.stop(syscall.SIGKILL)
	s.state(discovery.Failing)
	if err := os.RemoveAll(w.data[0]); err != nil {
		t.Fatal(err)
	}
	w.start()
	s.state(discovery.Holding)
	s.stays("the server has forgotten everything", time.Second)
	s.happens("two of four are there again", func(now map[int]string) {
		w.add(1, 1)
		w.add(2, 1)
		maps.DeleteFunc(now, func(n int, _ string) bool { return n > 2 })
	})
	s.happens("another comes", func(now map[int]string) { now[9] = w.add(9, 1) })
}

// TestConsulCluster: of three servers the one that leads may go, also the one that is asked; without a majority, what was
// found stays.
func TestConsulCluster(t *testing.T) {
	w := newConsul(t, 3, "-hcl", "performance { raft_multiplier = 1 }", "-retry-interval=1s")
	s := tell(t, w)
	s.happens("two come", func(now map[int]string) { now[1] = w.add(1, 1); now[2] = w.add(2, 1) })
	for round := range 3 {
		l := w.leader()
		if l < 0 {
			t.Fatal("nobody leads")
		}
		w.members[l].stop(syscall.SIGKILL)
		t.Logf("server %d, which led, is killed", l)
		if l == 0 { // whom the source asks
			s.state(discovery.Failing)
			s.stays("the server that is asked is down", 3*time.Second)
			w.start()
		} else {
			w.ready()
		}
		s.happens("a change without the leader", func(now map[int]string) { now[2] = w.change(2, round+2) })
		w.start()
		s.state(discovery.Fresh)
	}

	// A server alone goes on answering those who follow it, with what it has, and says nothing of the leader that it misses.
	// Who asks for the first time gets no answer, and so the source tells; what it found stays.
	for i := 1; i < len(w.members); i++ {
		w.members[i].stop(syscall.SIGKILL)
	}
	until(t, "the leader is missed", 30*time.Second, func() bool { return w.leader() < 0 })
	s.state(discovery.Failing)
	good := s.r.Status().Sources[0].Good
	s.stays("no majority", *down)
	if st := s.r.Status().Sources[0]; st.State != discovery.Failing || !st.Good.Equal(good) || st.Backends != len(s.now) {
		t.Errorf("no majority: %s, %d backends, confirmed at %v; want failing, %d and %v", s.status(), st.Backends, st.Good, len(s.now), good)
	}
	t.Log(s.status(), s.r.Status().Sources[0].Counters.Failed)
	if list, err := w.source().Fetch(t.Context()); err == nil || discovery.ReasonOf(err) != discovery.ReasonStatus {
		t.Errorf("without a leader: got %v, %v; want an error by status", list, err)
	}
	w.start()
	s.state(discovery.Fresh)
	s.happens("one goes", func(now map[int]string) { w.remove(1); delete(now, 1) })
	s.quiet("quiet", 3*time.Second)
}

// besideAgent is a world whose source asks an agent beside the server, as Consul is meant to be used.
type besideAgent struct{ *consulWorld }

// start has the agent find the server at once, which else it does within half a minute.
func (w besideAgent) start() {
	w.t.Helper()
	w.consulWorld.start()
	w.join()
}

// TestConsulAgent: an agent tells when it has no server, and goes away itself. What it has of before an outage it goes on
// telling for a while behind an index, when the first query has long shown what is new: what came must not go again.
func TestConsulAgent(t *testing.T) {
	w := newConsul(t, 1)
	agent := w.agent()
	s := tell(t, besideAgent{w})
	s.whole()
	for n := 5; n <= 6; n++ {
		w.stop(syscall.SIGKILL)
		s.state(discovery.Failing)
		s.stays("the server is down", 10*time.Second)
		s.w.start()
		s.happens("one comes as soon as it is back", func(now map[int]string) { now[n] = w.add(n, 1) })
		s.stays("and stays", 10*time.Second)
	}
	agent.stop(syscall.SIGKILL)
	s.state(discovery.Failing)
	s.stays("the agent is down", time.Second)
	agent.start()
	s.state(discovery.Fresh)
	s.happens("one goes after the agent was killed", func(now map[int]string) { w.remove(2); delete(now, 2) })
}
