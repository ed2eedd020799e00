package admin

import (
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	const at = "/api/v1/pools/new/table"
	r.want(404, "GET", at, "", "")
	r.want(404, "PUT", at, asTOML, "[pools.new]\n")
	r.want(404, "GET", "/api/v1/frontends/new/table", "", "")
	r.want(200, "PUT", "/api/v1/pools/new?persist=true", asTOML, "policy = \"random\"\nbackends = [\n  { address = \"127.0.0.1:10\" },\n]\n")
	before := r.file()

	_, text, h := r.body("GET", at, "", "")
	if !strings.HasPrefix(text, "[pools.new]\n") || !strings.Contains(before, text) || h.Get("ETag") != r.tag() || !strings.HasPrefix(h.Get("Content-Type"), "application/toml") {
		t.Fatalf("%v %s", h, text)
	}
	if same := decoded[changed](t, r.want(200, "PUT", at+"?dry_run=true", asTOML, text)); len(same.Changes) != 0 || same.Unsaved {
		t.Errorf("what was shown would change %+v", same)
	}

	// Mistakes are told at the lines of what was sent: those of its own, of syntax, of a table that is another's.
	for sent, want := range map[string]string{
		strings.Replace(text, "random", "rand", 1) + "# more\nconnect_timeout = 1\n": `"line": 5`,
		text + "x = \n":                      `"line": 6`,
		text + "\n[log]\nlevel = \"info\"\n": `"line": 7`,
		text + "health = { kind = \"redis\", password = \"(not shown)\" }\n": "(not shown)",
	} {
		if got := r.want(422, "PUT", at+"?dry_run=true", asTOML, sent); !strings.Contains(got, want) {
			t.Errorf("%q: want %s, got %s", sent, want, got)
		}
	}
	p := decoded[problem](t, r.want(422, "PUT", at, asTOML, "# why\n"+strings.Replace(text, "random", "rand", 1)+"connect_timeout = 1\n"))
	if len(p.Errors) != 2 || p.Errors[0].Line != 6 || p.Errors[0].File != "body" || p.Errors[1].Line != 7 || !strings.HasPrefix(p.Errors[0].Message, "body:6: pools.new.policy: ") {
		t.Errorf("%+v", p)
	}
	r.want(415, "PUT", at, asJSON, `{"pools": {"new": {}}}`)

	// Comments are kept as they were sent, and nothing else is touched.
	sent := "# Ada, at night: the others are too slow.\n" + strings.Replace(text, "random", "leastconn", 1) + "# connect_attempts = 2\n"
	dry := decoded[changed](t, r.want(200, "PUT", at+"?dry_run=true", asTOML, sent, "If-Match", h.Get("ETag")))
	if len(dry.Changes) != 1 || !dry.DryRun || !strings.Contains(dry.Text, sent) || r.file() != before {
		t.Errorf("%+v", dry)
	}
	r.want(200, "PUT", at, asTOML, sent, "If-Match", h.Get("ETag"))
	r.want(412, "PUT", at, asTOML, sent, "If-Match", h.Get("ETag"))
	if got := r.d.Snapshot().Pool("new").Config.Policy; got != "leastconn" || r.file() != before {
		t.Errorf("the policy is %s", got)
	}
	if _, got, _ := r.body("GET", at, "", ""); got != sent {
		t.Errorf("got %s, want %s", got, sent)
	}
	r.want(200, "PUT", at+"?persist=true", asTOML, sent)
	if got := r.file(); got != strings.Replace(before, text, sent, 1) {
		t.Errorf("got %s", got)
	}

	// The table of one does not change another, whatever it is called.
	r.want(422, "PUT", "/api/v1/frontends/f/table", asTOML, sent)
	_, text, _ = r.body("GET", "/api/v1/frontends/f/table", "", "")
	r.want(200, "PUT", "/api/v1/frontends/f/table", asTOML, strings.Replace(text, "max_connections = 2\n", "max_connections = 7\n", 1))
	if got := r.d.Snapshot().Frontend("f").Config.MaxConnections; got != 7 {
		t.Errorf("at most %d", got)
	}
	r.want(422, "PUT", "/api/v1/pools/new/table", asTOML, "")
}
