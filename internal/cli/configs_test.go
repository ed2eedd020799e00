package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/internal/client"
)

// keeper keeps configurations as the admin does: by name, with an ETag, refusing who has seen another version.
type keeper struct {
	texts  map[string]string
	active string
	before func(r *http.Request) // called first
	log    []string              // the calls that change something
}

func (k *keeper) tag(name string) string { return fmt.Sprintf("tag-%s", k.texts[name]) }

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if k.before != nil {
		k.before(r)
	}
	body, _ := io.ReadAll(r.Body)
	refuse := func(code int, detail string) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": code, "detail": detail})
	}
	name, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, configsPath+"/"), "/")
	text, there := k.texts[name]
	if match := r.Header.Get("If-Match"); match != "" && (!there || match != `"`+k.tag(name)+`"`) || r.Header.Get("If-None-Match") == "*" && there {
		refuse(http.StatusPreconditionFailed, "somebody has changed it meanwhile")
		return
	}
	var answer any
	switch call := r.Method + " " + what; {
	case r.URL.Path == configsPath:
		list := configList{Active: k.active}
		for name := range k.texts {
			list.Configs = append(list.Configs, configInfo{Name: name, ETag: k.tag(name), Active: name == k.active})
		}
		answer = list
	case call == "POST validate":
		if len(body) > 0 {
			text = string(body)
		}
		v := verdict{OK: !strings.Contains(text, "mistake"), Warnings: []string{"beware"}}
		if v.OK && text != k.texts[k.active] {
			v.Changes = []client.Change{{Kind: "pool", Name: "web", Action: "changed", Detail: "to " + text}}
		} else if !v.OK {
			v.Errors = []client.Mistake{{Message: "a.toml:1: x\x1b[2J"}}
		}
		answer = v
	case call == "PUT ":
		k.log = append(k.log, fmt.Sprintf("store %s: %s, %s", name, body, r.Header.Get("Content-Type")))
		k.texts[name] = string(body)
		w.Header().Set("ETag", `"`+k.tag(name)+`"`)
		answer = configInfo{Name: name, Size: len(body), ETag: k.tag(name)}
	case call == "POST select":
		k.log, k.active = append(k.log, "select "+name), name
		answer = client.Report{Version: 2}
	default:
		refuse(http.StatusNotFound, "no such resource: "+r.URL.Path)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// try runs a command of config against k.
func (k *keeper) try(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	s := httptest.NewServer(k)
	defer s.Close()
	var b bytes.Buffer
	c := newConfig(Program{})
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetIn(strings.NewReader(""))
	c.SetArgs(append(args, "--admin", s.URL))
	err := c.Execute()
	code = exitCodeOf(err)
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	return code, b.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApply(t *testing.T) {
	k := &keeper{texts: map[string]string{"main": "old"}, active: "main"}
	code, out := k.try(t, "apply", write(t, "a.toml", "new"))
	if code != exitUsage || len(k.log) > 0 || !strings.Contains(out, "pool web changed: to new\n") || !strings.Contains(out, "run it as main? There is no terminal to ask: want --yes") {
		t.Errorf("without --yes: %d, %q, %s", code, k.log, out)
	}
	code, out = k.try(t, "apply", write(t, "a.toml", "mistake"), "--yes")
	if code != exitRefused || len(k.log) > 0 || !strings.Contains(out, "a.toml:1: x?[2J\n1 mistake\n") {
		t.Errorf("with a mistake: %d, %q, %s", code, k.log, out)
	}
	code, out = k.try(t, "apply", write(t, "a.json", "new"), "--yes")
	if code != exitOK || strings.Join(k.log, "; ") != "store main: new, application/json; select main" || !strings.Contains(out, "main runs, as configuration 2\n") {
		t.Errorf("%d, %q, %s", code, k.log, out)
	}
	k.log = nil
	code, out = k.try(t, "apply", write(t, "a.toml", "newer"), "--yes", "--name", "blue")
	if code != exitOK || strings.Join(k.log, "; ") != "store blue: newer, application/toml; select blue" {
		t.Errorf("under a new name: %d, %q, %s", code, k.log, out)
	}
}

// TestApplyBesideOthers: what somebody else stores after it was shown what would change is neither overwritten nor run.
func TestApplyBesideOthers(t *testing.T) {
	for _, when := range []string{"PUT", "POST select"} {
		k := &keeper{texts: map[string]string{"main": "old"}, active: "main"}
		k.before = func(r *http.Request) {
			if r.Method == "PUT" && when == "PUT" || strings.HasSuffix(r.URL.Path, "/select") {
				k.texts["main"] = "theirs"
			}
		}
		code, out := k.try(t, "apply", write(t, "a.toml", "ours"), "--yes")
		if code != exitRefused || k.texts["main"] != "theirs" || strings.Contains(strings.Join(k.log, ";"), "select") || !strings.Contains(out, "somebody has changed it") {
			t.Errorf("before %s: %d, %q, %s", when, code, k.log, out)
		}
	}
}

func TestDiffAndValidate(t *testing.T) {
	k := &keeper{texts: map[string]string{"main": "old", "blue": "other"}, active: "main"}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"diff", write(t, "a.toml", "new")}, 0, "warning: beware\npool web changed: to new\n"},
		{[]string{"diff", write(t, "a.toml", "new"), "--exit-code"}, 1, "it differs from what runs"},
		{[]string{"diff", write(t, "a.toml", "old"), "--exit-code"}, 0, "nothing changes\n"},
		{[]string{"diff", "--name", "blue"}, 0, "to other"},
		{[]string{"validate", write(t, "a.toml", "new")}, 0, "good: 1 change\n"},
		{[]string{"validate", write(t, "a.toml", "mistake")}, 1, "1 mistake"},
		{[]string{"validate", write(t, "a.toml", "mistake"), "-o", "json"}, 1, `"ok":false`},
		{[]string{"validate", "/nonexistent"}, 1, "no such file"},
		{[]string{"validate", write(t, "a.toml", "")}, 1, "has 0 bytes"},
		{[]string{"put", "blue", write(t, "a.toml", "x"), "--if-match", "tag-wrong"}, 1, "somebody has changed it"},
		{[]string{"put", "blue", write(t, "a.toml", "x"), "--create"}, 1, "somebody has changed it"},
		{[]string{"put", "blue", write(t, "a.toml", "x"), "--if-match", "tag-other"}, 0, "blue: stored, 1 bytes, etag tag-x\n"},
		{[]string{"get", "--version", "3"}, 2, "want the NAME"},
		{[]string{"rollback", "x"}, 2, "want a number"},
	} {
		if code, out := k.try(t, tc.args...); code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%v: %d, %q; want %d, %q", tc.args, code, out, tc.code, tc.want)
		}
	}
}
