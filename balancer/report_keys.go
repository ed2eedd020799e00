package balancer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"awe4lb/config"
)

// The lists of this file say what a reload does with a change, and docs/configuration.md says it in the column Reload: a test
// compares the two. A setting that is only asked for when a session or flow begins, a limit of how many there may be among them, is
// for new ones: those that live go on as they began.

// atStart are the keys that only a start applies, by table.
var atStart = map[string][]string{
	"engine": {"shards", "read_buffer", "user", "group", "tls_workers", "tls_nice", "tls_cpus"},
	"admin":  {"bind", "tls"},
}

// forNew are the keys that are for new sessions, in tables whose other keys are in force at once.
var forNew = map[string][]string{
	"engine": {"max_connections", "connection_rate", "connection_burst", "name", "zone", "ticket_secret"},
}

// compareKeys lists the keys of a table that differ, whatever keys there are.
func compareKeys(table string, was, now any, add func(kind, name, action, detail string)) {
	a, b := reflect.ValueOf(was), reflect.ValueOf(now)
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("toml")
		old, new := a.Field(i).Interface(), b.Field(i).Interface()
		if key == "-" || reflect.DeepEqual(old, new) {
			continue
		}
		detail := fmt.Sprintf("from %v to %v", shown(old), shown(new))
		switch kind := a.Field(i).Kind(); {
		case a.Type().Field(i).Tag.Get("secret") != "":
			detail = "the value is not shown"
		case kind == reflect.Struct || kind == reflect.Pointer || kind == reflect.Slice && a.Field(i).Type().Elem().Kind() == reflect.Pointer:
			detail = "new settings"
		}
		switch {
		case slices.Contains(atStart[table], key):
			detail += ", at the next start"
		case slices.Contains(forNew[table], key):
			detail += ", for new sessions"
		}
		add(table, key, "changed", detail)
	}
}

// shown makes an empty text visible.
func shown(v any) any {
	if v == "" {
		return `""`
	}
	return v
}

// atOnce are the keys, or tables, of frontends and pools that hold for sessions and flows that live already, too.
var atOnce = []string{"bind", "protocol", "unix_mode", "bandwidth", "bandwidth_per_source", "bandwidth_per_session",
	"udp.mode", "udp.replies", "udp.buffer_size", "udp.idle_timeout", "udp.unreplied_timeout", "udp.max_requests", "udp.max_responses",
	"udp.on_backend_gone", "udp.gso", "udp.receive_buffer", "udp.new_flow_prefix_v4", "udp.new_flow_prefix_v6",
	"health", "outliers", "discovery", "on_down", "on_removed", "on_maintenance", "drain_timeout", "drain_rate", "queue.when_down"}

// atOnceUDP are those that hold so in frontends of datagrams only: each datagram is asked anew what a session is asked once.
var atOnceUDP = []string{"access", "proxy_protocol"}

// newSettings says which keys differ between two tables of a kind, but for those that others tell of, and for whom they hold.
func newSettings(was, now any, others ...string) string {
	const settings, forAll = "new sessions use the new settings", "in force at once"
	var fresh, all []string
	at := atOnce
	if f, ok := now.(*config.Frontend); ok && f.IsUDP() {
		at = slices.Concat(atOnce, atOnceUDP)
	}
	for _, key := range changedKeys("", reflect.ValueOf(was).Elem(), reflect.ValueOf(now).Elem()) {
		table, _, _ := strings.Cut(key, ".")
		switch {
		case slices.Contains(others, key):
		case slices.Contains(at, key), slices.Contains(at, table):
			all = append(all, key)
		default:
			fresh = append(fresh, key)
		}
	}
	if len(fresh)+len(all) == 0 {
		return settings
	}
	var said []string
	if len(fresh) > 0 {
		said = append(said, settings+" ("+strings.Join(fresh, ", ")+")")
	}
	if len(all) > 0 {
		said = append(said, forAll+" ("+strings.Join(all, ", ")+")")
	}
	return strings.Join(said, ", ")
}

// changedKeys returns the keys whose values differ between two structs of one type. Of a table inside, such as tls, it names
// the keys, unless only one of the two has the table.
func changedKeys(path string, was, now reflect.Value) []string {
	var keys []string
	for i := range was.NumField() {
		a, b, key := was.Field(i), now.Field(i), was.Type().Field(i).Tag.Get("toml")
		if key == "-" || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		if a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
			a, b = a.Elem(), b.Elem()
		}
		if a.Kind() == reflect.Struct && a.Type().Field(0).Tag.Get("toml") != "" {
			keys = append(keys, changedKeys(path+key+".", a, b)...)
			continue
		}
		keys = append(keys, path+key)
	}
	return keys
}
