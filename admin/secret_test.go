package admin

import (
	"net/http"
	"strings"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
)

const marker = "geheim-4815162342"

// running has a secret in each place that a configuration has for one, but for [admin], which is that of main.
const runningSecrets = `
[pools.redis]
backends = [{ address = "127.0.0.1:9" }]
health = { kind = "redis", password = "M" } # password = "M"
[pools.http]
backends = [{ address = "127.0.0.1:9" }]
health = { kind = "http", headers = ["Authorization: M"] }
[pools.found]
[[pools.found.discovery.sources]]
kind = "http"
url = "http://127.0.0.1:9/?key=M"
headers = ["X: M"]
user = "u"
password = "M"
[[pools.found.discovery.sources]]
kind = "consul"
service = "s"
url = "http://127.0.0.1:9"
token = "M"
[[pools.found.discovery.sources]]
kind = "redis"
name = "n"
url = "redis://127.0.0.1:9"
password = "M"
[acme]
eab_key_id = "k"
eab_hmac_key = "QQ"
`

// draftSecrets are mistakes with a secret in them.
var draftSecrets = []string{
	"[admin.tokens]\nprometheus = \"M\"\n", "[admin]\ntokens = [\"M\"]\nusers = \"M\"\npush = \"M\"\n", "admin = \"M\"\n", "acme = \"M\"\n",
	"[[admin.tokens]]\nname = \"x\"\nvalue = \"M\"\n", "[admin.tokens.x]\ntoken = { value = \"M\" }\n", "[admin.tokens.x.token]\nvalue = \"M\"\n", "[admin.tokens.x]\nTOKEN = \"M\"\napi_key = \"M\"\n",
	"[admin.users.x]\npassword = \"M\"\npassword_hsah = 'M'\n", "[pools.x]\nhealth = \"M\"\ndiscovery = \"M\"\n", "[pools.x.health]\nkind = \"http\"\nheaders = \"M\"\n",
	"[pools.x.health]\nkind = \"http\"\nheaders = { Authorization = \"M\" }\n", "[pools.x]\nbackends = []\n[[pools.x.health]]\npassword = \"M\"\n", "[pools.x.discovery]\nkind = \"http\"\nurl = [\"http://M/\"]\n",
	"[pools.x.discovery]\nkind = \"vault\"\nsecret_id = \"M\"\n", "secrets = { a = [{ b = \"M\" }, \"M\"] }\n", "# [admin.tokens.x]\n# token = [\n#  \"M\" ]\n[pools.x]\n# api_key = \"M\"\n",
	"[pools.x.discovery]\nkind = \"exec\"\nenv = { A = \"M\" }\n", "[pools.x]\nbackends = [\n  M\n]\n", "[admin.tokens.x]\ntoken = M\n", "[x]\ny = M\n",
}

// TestReadersSeeNoSecret: whatever is stored, and whatever runs, nobody below the role configure sees a secret in any answer.
func TestReadersSeeNoSecret(t *testing.T) {
	g := newGuarded(t, func(c *config.Admin) { c.Compat = "gobetween" })
	as := func(role string) func(*http.Request) {
		return func(r *http.Request) {
			bearer(role + secretOf)(r)
			if r.Method == "PUT" {
				r.Header.Set("Content-Type", asTOML)
			}
		}
	}
	secret := func(text string) string { return strings.ReplaceAll(text, "M", marker) }
	store := func(name, text string) {
		t.Helper()
		if res, body := g.send("PUT", "/api/v1/configs/"+name, text, as("configure")); res.StatusCode != 200 {
			t.Fatalf("%s: %d %s", text, res.StatusCode, body)
		}
	}
	store("run", secret(runningSecrets))
	if res, body := g.send("POST", "/api/v1/configs/run/select", "", as("configure")); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	store("run", secret(strings.ReplaceAll(runningSecrets, "127.0.0.1:9", "127.0.0.1:10"))) // and a version before it
	look := func(draft string) {
		t.Helper()
		g.reload = func() (*balancer.Report, error) {
			_, err := config.Parse("main", []byte(secret(draft)))
			return new(balancer.Report), err
		}
		for _, e := range append(endpoints(), gobetweenEndpoints()...) {
			if _, isStream := e.answer.(streamed); isStream || e.path == "/api/v1/drain" || e.path == "/api/v1/upgrade" {
				continue
			}
			for _, name := range []string{"draft", "run"} {
				values := map[string]string{"{pool}": "found", "{address:*}": "127.0.0.1:9", "{version}": "1", "{id}": "1-1-1", "{client}": "10.0.0.1", "{name}": name}
				path := pathParameter.ReplaceAllStringFunc(e.path, func(p string) string { return values[p] })
				body := ""
				if e.body != nil {
					body = `{"version": 1, "dry_run": true}`
				}
				for _, query := range []string{"", "?format=json", "?dry_run=true"} {
					for _, role := range []string{"none", "read", "operate"} {
						res, text := g.send(e.method, path+query, body, bearer(role+secretOf))
						if strings.Contains(text, marker) || strings.Contains(strings.Join(res.Header["Location"], ""), marker) {
							t.Errorf("%s %s%s as %s of\n%s\n%d %s", e.method, path, query, role, secret(draft), res.StatusCode, text)
						}
						g.s.guesses.mu.Lock()
						clear(g.s.guesses.debt)
						g.s.guesses.mu.Unlock()
					}
				}
				if e.path == pathParameter.ReplaceAllString(e.path, "") {
					break
				}
			}
		}
	}
	for i, draft := range draftSecrets {
		store("draft", secret(draft))
		if i == 0 {
			look(draft)
			continue
		}
		g.reload = func() (*balancer.Report, error) {
			_, err := config.Parse("main", []byte(secret(draft)))
			return new(balancer.Report), err
		}
		// Only what shows the draft or its mistakes.
		for _, call := range [][2]string{{"GET", "/api/v1/configs"}, {"GET", "/api/v1/configs/draft"}, {"GET", "/api/v1/configs/draft?format=json"}, {"GET", "/api/v1/configs/draft/history"},
			{"GET", "/api/v1/configs/draft/history/1"}, {"POST", "/api/v1/reload"}, {"POST", "/api/v1/configs/draft/validate"}, {"POST", "/api/v1/configs/draft/select"}} {
			for _, role := range []string{"read", "operate"} {
				if res, text := g.send(call[0], call[1], "", bearer(role+secretOf)); strings.Contains(text, marker) {
					t.Errorf("%s %s as %s of\n%s\n%d %s", call[0], call[1], role, secret(draft), res.StatusCode, text)
				}
			}
		}
	}
	// Who may see it does.
	store("draft", secret(draftSecrets[0]))
	if _, text := g.send("GET", "/api/v1/configs/draft", "", as("configure")); !strings.Contains(text, marker) {
		t.Errorf("as configure: %s", text)
	}
}
