package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The parts of Grafana's JSON model of dashboards that TestDashboardModel looks at:
// https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
type dashboardPanel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Panels  []dashboardPanel

	Datasource  *dashboardSource
	FieldConfig *struct{ Defaults struct{ Unit string } }
	Targets     []struct {
		RefID, Expr, LegendFormat string
		Datasource                *dashboardSource
	}
}

type dashboardSource struct{ Type, UID string }

// dashboardUnits are Grafana's ids of units, of those there are: packages/grafana-data/src/valueFormats/categories.ts.
var dashboardUnits = []string{"", "none", "short", "s", "bytes", "Bps", "cps", "pps", "ops", "percentunit", "bool", "dateTimeFromNow"}

// TestDashboardModel holds the dashboard to what Grafana makes of one: panels have ids of their own and do not lie on each other,
// each query has a reference of its own and goes to the data source that is chosen, rates are over what Grafana takes for right at
// the present zoom, units and variables exist, and a legend names labels that are left.
func TestDashboardModel(t *testing.T) {
	text, err := os.ReadFile("docs/grafana/awe4lb.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID           string
		SchemaVersion int
		Requires      []struct{ Type, ID string } `json:"__requires"`
		Panels        []dashboardPanel
		Templating    struct {
			List []struct {
				Name, Type string
				Datasource *dashboardSource
			}
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.SchemaVersion < 36 || d.UID == "" || len(d.UID) > 40 { // since 36 a data source is an object
		t.Errorf("schemaVersion %d, uid %q", d.SchemaVersion, d.UID)
	}
	source := dashboardSource{"prometheus", "${datasource}"}
	variables := []string{"__rate_interval", "datasource"}
	for i, v := range d.Templating.List {
		if i == 0 && (v.Type != "datasource" || v.Name != "datasource") || i > 0 && (v.Type != "query" || v.Datasource == nil || *v.Datasource != source) {
			t.Errorf("the variable %q: %+v", v.Name, v)
		}
		variables = append(variables, v.Name)
	}
	types := map[string]bool{"row": true}
	for _, r := range d.Requires {
		types[r.ID] = types[r.ID] || r.Type == "panel"
	}
	used, ids, grid := map[string]bool{"datasource": true, "__rate_interval": true}, map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		where := fmt.Sprintf("%d %q", p.ID, p.Title)
		if other, taken := ids[p.ID]; taken || p.ID <= 0 {
			t.Errorf("%s has the id of %s", where, other)
		}
		ids[p.ID] = where
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.X+g.W > 24 || g.H < 1 || g.Y < 0 {
			t.Errorf("%s is at %+v", where, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := grid[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", where, other)
				}
				grid[[2]int{x, y}] = where
			}
		}
		if !types[p.Type] {
			t.Errorf("%s: __requires does not have the panel %s", where, p.Type)
		}
		if p.Type == "row" {
			if len(p.Targets)+len(p.Panels) > 0 {
				t.Errorf("%s: a row has what is not shown while it is open", where)
			}
			continue
		}
		if len(p.Targets) == 0 || p.Datasource == nil || *p.Datasource != source {
			t.Errorf("%s: data source %v, %d queries", where, p.Datasource, len(p.Targets))
		}
		if p.FieldConfig == nil || !slices.Contains(dashboardUnits, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%s: %+v", where, p.FieldConfig)
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if refs[q.RefID] || q.RefID == "" || q.Datasource == nil || *q.Datasource != source {
				t.Errorf("%s: query %q of %v", where, q.RefID, q.Datasource)
			}
			refs[q.RefID] = true
			for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(q.Expr, -1) {
				used[m[1]] = true
				if !slices.Contains(variables, m[1]) {
					t.Errorf("%s: there is no variable %s", where, m[1])
				}
			}
			for _, m := range regexp.MustCompile(`\[(.*?)\]`).FindAllStringSubmatch(q.Expr, -1) {
				if m[1] != "$__rate_interval" {
					t.Errorf("%s: a rate over %s: want $__rate_interval", where, m[1])
				}
			}
			// Those with several series need a legend, and it can only name what the query leaves.
			left := regexp.MustCompile(`by \((.*?)\)`).FindStringSubmatch(q.Expr)
			named := regexp.MustCompile(`\{\{ *(\w+) *\}\}`).FindAllStringSubmatch(q.LegendFormat, -1)
			var names []string
			for _, m := range named {
				names = append(names, m[1])
				if left != nil && !slices.Contains(strings.Split(strings.ReplaceAll(left[1], " ", ""), ","), m[1]) {
					t.Errorf("%s: the legend names %s, of which the sum %s leaves nothing", where, m[1], left[0])
				}
			}
			if left == nil && p.Type != "stat" && !slices.Contains(names, "instance") && !strings.HasPrefix(q.Expr, "histogram_quantile") {
				t.Errorf("%s: the series of several instances have one legend, %q", where, q.LegendFormat)
			}
			if left != nil {
				for _, l := range strings.Split(strings.ReplaceAll(left[1], " ", ""), ",") {
					if l != "le" && !slices.Contains(names, l) {
						t.Errorf("%s: several series %s have one legend, %q", where, left[0], q.LegendFormat)
					}
				}
			}
			if p.Type != "stat" && q.LegendFormat == "" {
				t.Errorf("%s: no legend", where)
			}
		}
	}
	for _, v := range variables {
		if !used[v] {
			t.Errorf("nothing uses the variable %s", v)
		}
	}
}
