package admin

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

const asBrowser = "text/html,application/xhtml+xml,*/*;q=0.8"

// plain gets a file as it is: without gzip, which http's client would ask for by itself.
func (r *rig) plain(path string, headers ...string) (int, string, http.Header) {
	r.t.Helper()
	return r.do("GET", path, append(headers, "Accept-Encoding", "identity")...)
}

// TestPage: browsers get the page, others the list of calls; nothing of it needs credentials, and nothing else comes with it.
func TestPage(t *testing.T) {
	r := newRig(t, "127.0.0.1:1")
	status, page, h := r.plain("/", "Accept", asBrowser)
	if status != 200 || !strings.HasPrefix(page, "<!doctype html>") || h.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v\n%.200s", status, h, page)
	}
	policy := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy lacks %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy: %s", policy)
	}
	if _, list, h := r.plain("/"); !strings.HasPrefix(list, "awe4lb v1.2.3\n") || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Vary") == "" {
		t.Errorf("not the list: %v\n%.200s", h, list)
	}
	// What the policy forbids the page must not have.
	if m := regexp.MustCompile(`<script(?:>| [^>]*[^"]>|[^>]*>[^<])|<style| style=| on\w+=`).FindString(page); m != "" {
		t.Errorf("inline: %q", m)
	}
	if m := regexp.MustCompile(`https?://[^"]*`).FindString(page); m != "" {
		t.Errorf("the page names another host: %q", m)
	}

	assets := regexp.MustCompile(`(?:src|href)="\./(assets/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(assets) < 3 { // the script, the style sheet, the picture
		t.Fatalf("assets: %q", assets)
	}
	kinds := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	for _, m := range assets {
		status, body, h := r.plain("/" + m[1])
		if want := kinds[m[1][strings.LastIndex(m[1], "."):]]; status != 200 || body == "" || h.Get("Content-Type") != want {
			t.Errorf("%s: %d %v", m[1], status, h)
		}
		if h.Get("Cache-Control") != cacheAssets || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", m[1], h)
		}
		if status, body, _ := r.do("GET", "/"+m[1], "If-None-Match", h.Get("ETag")); status != 304 || body != "" {
			t.Errorf("%s: %d for the version it has", m[1], status)
		}
	}
	for _, path := range []string{"/assets/", "/assets/none.js", "/assets/..%2fapi.go", "/assets/../../api.go", "/index.html", "/ui/dist/index.html"} {
		if status, _, _ := r.do("GET", path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// TestPageIsSmall: what a browser loads before it shows something is 150 kB at most, compressed. The editor comes later.
func TestPageIsSmall(t *testing.T) {
	const most = 150_000
	r := newRig(t, "127.0.0.1:1")
	status, packed, h := r.do("GET", "/", "Accept", asBrowser, "Accept-Encoding", "gzip")
	if status != 200 || h.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d %v", status, h)
	}
	total := len(packed)
	for _, m := range regexp.MustCompile(`(?:src|href)="\./(assets/[^"]+)"`).FindAllStringSubmatch(unpacked(t, packed), -1) {
		_, body, h := r.do("GET", "/"+m[1], "Accept-Encoding", "gzip")
		total += len(body)
		if h.Get("Content-Encoding") == "gzip" {
			_, same, _ := r.plain("/" + m[1])
			if unpacked(t, body) != same {
				t.Errorf("%s: not the same compressed", m[1])
			}
		}
	}
	if t.Logf("%d bytes", total); total > most {
		t.Errorf("the page loads %d bytes at first; want at most %d", total, most)
	}
}

func unpacked(t *testing.T, packed string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, z); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageNeedsNoCredentials: who has none gets the page, so that they can log in, and no data.
func TestPageNeedsNoCredentials(t *testing.T) {
	r := newRig(t, "127.0.0.1:1")
	r.s.access.Store(&access{hosts: map[string]bool{}})
	if status, _, _ := r.plain("/", "Accept", asBrowser); status != 200 {
		t.Errorf("the page: %d", status)
	}
	if status, _, _ := r.do("GET", "/api/v1/status"); status != 401 {
		t.Errorf("the data: %d", status)
	}
	if status, _, _ := r.plain("/", "Accept", asBrowser, "Host", "evil.example"); status != 403 {
		t.Errorf("the page under another name: %d", status)
	}
}
