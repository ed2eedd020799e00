package balancer

import (
	"fmt"
	"reflect"
	"slices"

	"awe4lb/config"
)

// atStart are the keys of [engine] that only a start applies.
var atStart = []string{"shards", "read_buffer", "user", "group"}

// compareEngine lists the keys of [engine] that differ, whatever keys there are.
func compareEngine(was, now *config.Engine, add func(kind, name, action, detail string)) {
	a, b := reflect.ValueOf(*was), reflect.ValueOf(*now)
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("toml")
		old, new := a.Field(i).Interface(), b.Field(i).Interface()
		if reflect.DeepEqual(old, new) {
			continue
		}
		detail := fmt.Sprintf("from %v to %v", shown(old), shown(new))
		if slices.Contains(atStart, key) {
			detail += ", at the next start"
		}
		add("engine", key, "changed", detail)
	}
}

// shown makes an empty text visible.
func shown(v any) any {
	if v == "" {
		return `""`
	}
	return v
}
