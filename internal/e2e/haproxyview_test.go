//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// TestHaproxyView holds /metrics?view=haproxy against what a real HAProxy exports for a configuration of the same shape: names,
// types, labels, and the values of state.
func TestHaproxyView(t *testing.T) {
	port, exporter := lbtest.FreePort(t), lbtest.FreePort(t)
	backend := lbtest.Echo(t)
	dir := openDir(t)
	conf := write(t, dir, "haproxy.cfg", fmt.Sprintf(`
defaults
  mode tcp
  timeout connect 1s
  timeout client 1s
  timeout server 1s
frontend test
  bind 127.0.0.1:%d
  default_backend test
backend test
  server one %s check inter 100ms
frontend exporter
  mode http
  bind 127.0.0.1:%d
  http-request use-service prometheus-exporter
`, port, backend, exporter))
	launch(t, nil, "haproxy", "-db", "-f", conf).waitFor("haproxy listens", func() bool { return listens(local(exporter)) })
	theirs := ""
	lbtest.Eventually(t, "haproxy has checked", func() bool {
		res, err := http.Get("http://" + local(exporter) + "/metrics")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		theirs = string(b)
		return err == nil && strings.Contains(theirs, `haproxy_server_check_status{proxy="test",server="one",state="L4OK"} 1`)
	})

	lb := start(t, balance(backend)+"health = { kind = \"tcp\", interval = \"100ms\" }\n")
	ours := ""
	lb.waitFor("we have checked", func() bool {
		ours = string(lb.get("/metrics?view=haproxy"))
		return strings.Contains(ours, fmt.Sprintf(`haproxy_server_check_status{proxy="test",server=%q,state="L4OK"} 1`, backend))
	})

	types := func(text string) map[string]string {
		found := map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
			found[m[1]] = m[2]
		}
		return found
	}
	// The labels of each family, with the values of state.
	shape := func(text string) map[string]map[string]bool {
		found := map[string]map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^(haproxy_\w+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(text, -1) {
			labels := regexp.MustCompile(`(proxy|server|version)="[^"]*"`).ReplaceAllString(m[2], "$1")
			if found[m[1]] == nil {
				found[m[1]] = map[string]bool{}
			}
			found[m[1]][labels] = true
		}
		return found
	}
	theirTypes, theirShape, ourShape := types(theirs), shape(theirs), shape(ours)
	// Later versions of HAProxy have these; 2.6 has them for backends only.
	later := map[string]bool{"haproxy_server_active": true, "haproxy_server_backup": true}
	ourTypes := types(ours)
	if len(ourTypes) < 50 {
		t.Errorf("only %d families", len(ourTypes))
	}
	for name, kind := range ourTypes {
		if later[name] {
			continue
		}
		if theirTypes[name] != kind {
			t.Errorf("%s is a %s; HAProxy has %q", name, kind, theirTypes[name])
		}
		for labels := range ourShape[name] {
			if !theirShape[name][labels] {
				t.Errorf("%s{%s}: HAProxy has %v", name, labels, theirShape[name])
			}
		}
		for labels := range theirShape[name] {
			if strings.Contains(labels, "state=") && !ourShape[name][labels] {
				t.Errorf("%s{%s} is HAProxy's and not ours", name, labels)
			}
		}
	}
}
