//go:build real

package real

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ask sends a query to a server; what it returns has the whole answer, or what there is of it when the server goes.
func (w *consulWorld) ask(member int, query string) *exchange {
	w.t.Helper()
	header := []string{closing}
	if w.token != "" {
		header = append(header, "X-Consul-Token: "+w.token)
	}
	return send(w.t, "tcp", strings.TrimPrefix(w.urls[member], "http://"), "/v1/health/service/web?passing=1"+query, "", header...)
}

// index returns the X-Consul-Index of an answer.
func index(t *testing.T, answer []byte) string {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.Header.Get("X-Consul-Index")
}

func recordConsul(t *testing.T) {
	w := newConsul(t, 1)
	w.add(1, 1)
	w.add(2, 4)
	w.instance(3, 1, "critical")
	last := w.ask(0, "").until("", 0)
	save(t, "consul/first.http", last)
	held := func() *exchange { return w.ask(0, "&wait=30000ms&index="+index(t, last)) }
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"added.http", func() { w.add(4, 1) }},
		{"changed.http", func() { w.change(2, 9) }},
		{"removed.http", func() { w.remove(1) }},
	} {
		answer := held()
		c.change()
		last = answer.until("", 0)
		save(t, "consul/"+c.name, last)
	}
	last = w.ask(0, "&wait=1000ms&index="+index(t, last)).until("", 0)
	save(t, "consul/quiet.http", last)

	// A server that restarts keeps its index; one that comes back without its memory does not.
	answer := held()
	w.stop(syscall.SIGKILL)
	if b := answer.until("", 0); len(b) > 0 {
		t.Errorf("killed while it held a query: got %q; want nothing", b)
	}
	w.start()
	w.add(5, 1)
	last = w.ask(0, "").until("", 0)
	save(t, "consul/restarted.http", last)
	w.stop(syscall.SIGKILL)
	if err := os.RemoveAll(w.data[0]); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.add(6, 1)
	save(t, "consul/forgotten.http", w.ask(0, "&wait=1000ms&index="+index(t, last)).until("", 0))
}

func recordConsulACL(t *testing.T) {
	w := newConsul(t, 1, "-hcl", `acl { enabled = true, default_policy = "deny", tokens { default = "" } }`)
	var made struct{ SecretID string }
	if err := json.Unmarshal(w.put("/v1/acl/bootstrap", nil), &made); err != nil {
		t.Fatal(err)
	}
	w.token = made.SecretID
	w.add(1, 1)
	if err := json.Unmarshal(w.put("/v1/acl/token", map[string]any{"Description": "of nothing"}), &made); err != nil {
		t.Fatal(err)
	}
	w.token = made.SecretID
	save(t, "consul/filtered.http", w.ask(0, "").until("", 0))
	w.token = "5ec4e700-0000-0000-0000-000000000000"
	save(t, "consul/denied.http", w.ask(0, "").until("", 0))
}

// recordConsulCluster is a server that holds a query when the one that leads is killed and another follows it, and one when
// that is killed too and nobody can follow: the query is answered all the same, with what the server itself has. A query that
// has no index to wait behind is not.
func recordConsulCluster(t *testing.T) {
	w := newConsul(t, 3, "-hcl", "performance { raft_multiplier = 1 }", "-retry-interval=1s")
	w.add(1, 1)
	w.add(2, 4)
	first := w.leader()
	stays := (first + 1) % 3
	last := w.ask(stays, "").until("", 0)
	save(t, "consul/cluster-first.http", last)
	held := func(wait string) *exchange { return w.ask(stays, "&wait="+wait+"&index="+index(t, last)) }
	answer := held("60000ms")
	w.members[first].stop(syscall.SIGKILL)
	w.ready()
	w.add(3, 1)
	last = answer.until("", 0)
	save(t, "consul/cluster-newleader.http", last)
	answer = held("5000ms")
	w.members[3-first-stays].stop(syscall.SIGKILL)
	until(t, "the leader is missed", 30*time.Second, func() bool { return w.leader() < 0 })
	save(t, "consul/cluster-leaderlost.http", answer.until("", 0))
	save(t, "consul/noleader.http", w.ask(stays, "").until("", 0))
}

// recordConsulAgent is an agent that was without a server for a while, in which it tries ever more rarely to follow one. What
// it says to a first query comes from the server that is back, and behind that index it says what it had before.
func recordConsulAgent(t *testing.T) {
	w := newConsul(t, 1)
	w.add(1, 1)
	w.agent()
	ask := func(query string) []byte {
		return send(t, "tcp", strings.TrimPrefix(w.asked, "http://"), "/v1/health/service/web?passing=1"+query, "", closing).until("", 0)
	}
	before := ask("&wait=1000ms&index=" + index(t, ask(""))) // from now on the agent follows
	w.stop(syscall.SIGKILL)
	until(t, "the agent has no server", 30*time.Second, func() bool { return bytes.Contains(ask(""), []byte("No known Consul servers")) })
	save(t, "consul/agent-noserver.http", ask(""))
	time.Sleep(15 * time.Second) // the longer the outage, the longer until it tries again
	besideAgent{w}.start()
	w.add(2, 4)
	fresh := ask("")
	stale := ask("&wait=1000ms&index=" + index(t, fresh))
	if index(t, stale) != index(t, before) {
		t.Fatalf("got %s; want the index of %s", stale, before)
	}
	save(t, "consul/agent-fresh.http", fresh)
	save(t, "consul/agent-stale.http", stale)
}
