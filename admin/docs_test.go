package admin

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"awe4lb/engine"
)

// TestOperationsListsReasons: every end reason is in docs/operations.md and nothing else is called so there; every limit that
// metrics name is in docs/metrics.md. The metrics themselves are checked in the program's own test.
func TestOperationsListsReasons(t *testing.T) {
	b, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	section := func(heading string) string {
		t.Helper()
		_, s, ok := strings.Cut(doc, "\n"+heading+"\n")
		if !ok {
			t.Fatalf("no section %q", heading)
		}
		s, _, _ = strings.Cut(s, "\n## ")
		return s
	}
	rows := func(section string) map[string]bool {
		found := map[string]bool{}
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(section, -1) {
			if found[m[1]] {
				t.Errorf("%s is listed twice", m[1])
			}
			found[m[1]] = true
		}
		return found
	}
	compare := func(what string, listed, wanted map[string]bool) {
		for name := range wanted {
			if !listed[name] {
				t.Errorf("docs/operations.md lacks the %s %s", what, name)
			}
		}
		for name := range listed {
			if !wanted[name] {
				t.Errorf("docs/operations.md has the %s %s, which does not exist", what, name)
			}
		}
	}

	reasons := map[string]bool{}
	for r := range engine.Reason(engine.NumReasons) {
		reasons[r.String()] = true
	}
	compare("end reason", rows(section("### End reasons")), reasons)

	r := newRig(t, "127.0.0.1:1")
	_, text, _ := r.do("GET", "/metrics")
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	// The limits are labels that an alert names.
	for _, m := range regexp.MustCompile(`awe4lb_limit_hits_total\{limit="(\w+)"\}`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(page), m[1]) {
			t.Errorf("docs/metrics.md lacks the limit %s", m[1])
		}
	}
}
