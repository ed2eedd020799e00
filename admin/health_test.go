package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/health"
	"awe4lb/internal/lbtest"
)

// TestHealth: what status, metrics and events tell of backends that are checked.
func TestHealth(t *testing.T) {
	good, refused := lbtest.Named(t, "hello"), lbtest.Refused(t)
	r := newRig(t)
	cfg, err := config.Parse("h.toml", []byte(fmt.Sprintf("[pools.h]\nbackends = [{address = %q}, {address = %q}, {address = %q, weight = 0}]\n"+
		"health = {interval = '100ms', fall = 1, expect = 'hello'}\n[pools.none]\nbackends = [{address = '127.0.0.1:1'}]", good, refused, lbtest.Refused(t))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	p := health.New(health.Options{Log: slog.New(slog.DiscardHandler), Changed: func(x health.Transition) {
		if b := r.d.SetHealth(x.Pool, x.Address, x.Up); b != nil && !x.Initial {
			r.d.Record(balancer.Event{Pool: x.Pool, Backend: b.Name, What: "health", From: x.Before, To: b.State().String(), Why: x.Why})
		}
	}})
	t.Cleanup(p.Close)
	o := r.s.o
	o.Health = p
	s, err := Start(open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	r.url = "http://" + s.Address()
	p.Apply(cfg)

	var st status
	lbtest.Eventually(t, "both were probed", func() bool {
		_, body, _ := r.do("GET", "/api/v1/status")
		st = status{}
		if err := json.Unmarshal([]byte(body), &st); err != nil {
			t.Fatal(err)
		}
		b := st.Pools[0].Backends
		return b[0].Health.LastCheck != nil && b[1].State == "down" && b[1].Health.State == "down" // the pool is told first
	})
	up, down := st.Pools[0].Backends[0], st.Pools[0].Backends[1]
	if h := up.Health; up.State != "up" || h.State != "up" || h.Kind != "tcp" || h.LastResult != "good" || h.Good == 0 || h.Bad != 0 || h.LastError != "" || h.Latency <= 0 || h.Changes != 0 {
		t.Errorf("up: %+v", h)
	}
	if h := down.Health; h.State != "down" || h.LastResult != "bad" || !strings.Contains(h.Why, "refused") || !strings.Contains(h.LastError, "refused") || h.Changes != 1 || h.Since.IsZero() || h.Weight != nil {
		t.Errorf("down: %+v", h)
	}
	if b := st.Pools[0].Backends[2]; b.State != "disabled" {
		t.Errorf("weight 0: %s", b.State)
	}
	if b := st.Pools[1].Backends[0]; b.Health != nil || b.State != "up" {
		t.Errorf("without a check: %+v", b)
	}

	_, body, _ := r.do("GET", "/metrics")
	checkExposition(t, body)
	for _, want := range []string{
		fmt.Sprintf("awe4lb_backend_up{pool=\"h\",backend=%q} 1\n", good), fmt.Sprintf("awe4lb_backend_up{pool=\"h\",backend=%q} 0\n", refused),
		fmt.Sprintf("awe4lb_backend_state_changes_total{pool=\"h\",backend=%q} 1\n", refused),
		fmt.Sprintf("awe4lb_health_checks_total{pool=\"h\",backend=%q,result=\"good\"} 0\n", refused),
		`awe4lb_pool_backends{pool="h",state="down"} 1` + "\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if strings.Contains(body, `health_checks_total{pool="none"`) {
		t.Error("probes of a pool without a check")
	}

	var events struct{ Events []event }
	_, body, _ = r.do("GET", "/api/v1/events")
	if err := json.Unmarshal([]byte(body), &events); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range events.Events {
		found = found || e.Backend == refused && e.Pool == "h" && e.To == "down" && strings.Contains(e.Why, "refused") && !e.Time.IsZero()
	}
	if !found {
		t.Errorf("events: %s", body)
	}
}
