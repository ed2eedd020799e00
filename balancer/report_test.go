package balancer

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"awe4lb/config"
)

// TestReportTellsOfEngine: every key of [engine] that changes is reported, and those that need a restart say so.
func TestReportTellsOfEngine(t *testing.T) {
	apply := func(edit func(e *config.Engine)) *Report {
		t.Helper()
		d := NewDirector()
		d.Drive(new(plane))
		before := &config.Config{Engine: config.Engine{Shards: 2, DrainTimeout: 30 * time.Second}}
		if _, err := d.Apply(before); err != nil {
			t.Fatal(err)
		}
		after := &config.Config{Engine: before.Engine}
		edit(&after.Engine)
		r, err := d.Apply(after)
		if err != nil {
			t.Fatal(err)
		}
		r.Changes = r.Changes[:len(r.Changes)-1] // what the plane says
		return r
	}
	for _, tc := range []struct {
		edit    func(e *config.Engine)
		change  string
		restart []string
	}{
		{func(e *config.Engine) { e.MaxConnections = 7 }, "engine max_connections changed: from 0 to 7", nil},
		{func(e *config.Engine) { e.Splice = true }, "engine splice changed: from false to true", nil},
		{func(e *config.Engine) { e.DrainTimeout = time.Minute }, "engine drain_timeout changed: from 30s to 1m0s", nil},
		{func(e *config.Engine) { e.Shards = 4 }, "engine shards changed: from 2 to 4, at the next start", []string{"engine.shards"}},
		{func(e *config.Engine) { e.User = "lb" }, `engine user changed: from "" to lb, at the next start`, []string{"engine.user"}},
	} {
		r := apply(tc.edit)
		if len(r.Changes) != 1 || r.Changes[0].String() != tc.change || !slices.Equal(r.NeedRestart, tc.restart) {
			t.Errorf("got %v, restart %v; want %q, %v", r.Changes, r.NeedRestart, tc.change, tc.restart)
		}
	}

	// None is forgotten, those to come included.
	engine := reflect.TypeFor[config.Engine]()
	for i := range engine.NumField() {
		r := apply(func(e *config.Engine) {
			v := reflect.ValueOf(e).Elem().Field(i)
			switch v.Kind() {
			case reflect.String:
				v.SetString("other")
			case reflect.Bool:
				v.SetBool(!v.Bool())
			default:
				v.SetInt(v.Int() + 1)
			}
		})
		if got := fmt.Sprint(r.Changes); len(r.Changes) != 1 || r.Changes[0].Name != engine.Field(i).Tag.Get("toml") {
			t.Errorf("%s changed: the report says %s", engine.Field(i).Name, got)
		}
	}
}
