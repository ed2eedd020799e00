package balancer

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/config"
)

// docKey is a key of a table in docs/configuration.md.
type docKey struct {
	table, key string // "[frontends.NAME.udp]", "mode"
	reload     string
	meaning    string
}

// docKeys returns the keys of all tables that have a column Reload.
func docKeys(t *testing.T) []docKey {
	t.Helper()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	var keys []docKey
	var tables []string
	reloads := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "#"):
			tables, reloads = nil, false
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				tables = append(tables, m[1])
			}
		case strings.HasPrefix(line, "| Key |"):
			if reloads = strings.Contains(line, "| Reload |"); !reloads {
				t.Errorf("a table without the column Reload: %s", tables)
			}
		case reloads && strings.HasPrefix(line, "| `"):
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			for _, table := range tables {
				keys = append(keys, docKey{table, strings.Trim(strings.TrimSpace(cells[0]), "`"), strings.TrimSpace(cells[4]), strings.TrimSpace(cells[5])})
			}
		}
	}
	if len(keys) < 350 {
		t.Fatalf("%d keys; there are more", len(keys))
	}
	return keys
}

// path returns where the key is in a configuration: "frontends", "f", "udp", "mode".
func (k docKey) path() []string {
	table, _, _ := strings.Cut(k.table, "]")
	path := strings.Split(strings.TrimLeft(table, "["), ".")
	path = slices.DeleteFunc(path, func(s string) bool { return s == "NAME" })
	return append(path, k.key)
}

func addr(port uint16) config.Address {
	return config.Address{IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
}

// reported is a configuration with each table that the report looks into.
func reported(protocol string) *config.Config {
	route := func() *config.Route { return &config.Route{Pool: "p", Match: config.Match{SNI: []string{"a.example"}}} }
	return &config.Config{
		Admin: config.Admin{Users: []*config.AdminUser{{Name: "u"}}, Tokens: []*config.AdminToken{{Name: "t"}}, TLS: &config.AdminTLS{}},
		Frontends: []*config.Frontend{{Name: "f", Bind: []string{"127.0.0.1:1"}, Protocol: protocol, Pool: "p", Routes: []*config.Route{route()},
			TLS: &config.FrontendTLS{Certificates: []*config.CertificateFiles{{}}}, Access: config.Access{Rules: []*config.AccessRule{{}}}}},
		Pools: []*config.Pool{{Name: "p", Policy: "random", HashKey: "source", Backends: []*config.Backend{{Address: addr(1), Weight: 1}},
			TLS: &config.PoolTLS{}, Persistence: &config.Persistence{Key: "source", PrefixV4: 24, PrefixV6: 56, TTL: time.Minute, MaxEntries: 100},
			Queue: &config.Queue{}, Outliers: &config.Outliers{SuccessRate: &config.SuccessRate{}}, Health: &config.Health{}, Discovery: &config.Discovery{}},
			{Name: "q", Policy: "random"}},
	}
}

// changeAt changes the value of a key in v to another that the balancer knows what to do with, and reports whether there is one.
func changeAt(v reflect.Value, path []string, tag reflect.StructTag) bool {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			return len(path) == 0
		}
		if len(path) == 0 { // a table that goes
			v.SetZero()
			return true
		}
		return changeAt(v.Elem(), path, tag)
	case reflect.Slice:
		if len(path) == 0 {
			elem := reflect.New(v.Type().Elem()).Elem()
			switch {
			case elem.Kind() != reflect.Pointer:
			case v.Len() > 0:
				v.SetZero()
				return true
			default:
				elem.Set(reflect.New(elem.Type().Elem()))
			}
			v.Set(reflect.Append(v, elem))
			return true
		}
		if v.Len() == 0 {
			return false
		}
		return changeAt(v.Index(0), path, tag)
	case reflect.Struct:
		if len(path) == 0 {
			switch a := v.Addr().Interface().(type) {
			case *config.Address:
				*a = addr(9)
				return true
			case *netip.Addr:
				*a = addr(9).IP.Addr()
				return true
			}
			for i := range v.NumField() { // a table: any of its keys
				if f := v.Type().Field(i); f.Tag.Get("toml") != "-" && changeAt(v.Field(i), nil, f.Tag) {
					return true
				}
			}
			return false
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Tag.Get("toml") == path[0] {
				return changeAt(v.Field(i), path[1:], f.Tag)
			}
		}
		return false
	case reflect.String:
		for _, word := range strings.Fields(tag.Get("oneof")) {
			if word != v.String() {
				v.SetString(word)
				return true
			}
		}
		v.SetString("q") // also the name of a pool
		return true
	case reflect.Bool:
		v.SetBool(!v.Bool())
		return true
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
		return true
	case reflect.Uint32:
		v.SetUint(v.Uint() + 1)
		return true
	}
	return false
}

// classOf returns what the report says of a change of one key: "yes", "new", "restart", or what is wrong.
func classOf(t *testing.T, protocol string, k docKey) string {
	t.Helper()
	path := k.path()
	was, now := reported(protocol), reported(protocol)
	v := reflect.ValueOf(now).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("toml") != path[0] {
			continue
		}
		at := path[1:]
		if path[0] == "pools" && path[1] == "discovery" {
			at = []string{"discovery", "interval"} // the report does not look into it
		}
		if !changeAt(v.Field(i), at, "") {
			return "no such key"
		}
		d := NewDirector()
		d.Drive(new(plane))
		if _, err := d.Apply(was); err != nil {
			t.Fatal(err)
		}
		r, err := d.Apply(now)
		if err != nil {
			t.Fatal(err)
		}
		return classIn(r, path)
	}
	return "no such table"
}

// classIn finds in a report what it says of the only key that has changed.
func classIn(r *Report, path []string) string {
	if len(r.Changes) < 2 { // the last one is the plane's
		return "not reported"
	}
	c := r.Changes[0]
	key := strings.Join(path[1:], ".")
	fresh, atOnce := "new sessions use the new settings (", "in force at once ("
	restart := slices.Contains(r.NeedRestart, path[0]+"."+path[1])
	if restart != strings.HasSuffix(c.Detail, ", at the next start") {
		return fmt.Sprintf("in need of a restart and not, at once: %v, %v", r.NeedRestart, c)
	}
	switch {
	case restart:
		return "restart"
	case c.Kind == "backend":
		return "new" // said in its words
	case c.Kind == "log":
		return "yes"
	case c.Kind == "engine" || c.Kind == "admin" || c.Kind == "acme":
		if c.Name != path[1] {
			return "reported as " + c.String()
		}
		if strings.HasSuffix(c.Detail, ", for new sessions") {
			return "new"
		}
		return "yes"
	}
	detail, ok := strings.CutSuffix(c.Detail, ")")
	for prefix, class := range map[string]string{fresh: "new", atOnce: "yes"} {
		of, cut := strings.CutPrefix(detail, prefix)
		// The report stops at tables that are arrays, and goes into those that are always there.
		if ok && cut && (of == key || strings.HasPrefix(key, of+".") || strings.HasPrefix(of, key+".")) {
			return class
		}
	}
	return "reported as " + c.String()
}

// TestReportAgreesWithDocs: what a report says of a key that has changed is what the column Reload of docs/configuration.md says of it,
// for every key that is there.
func TestReportAgreesWithDocs(t *testing.T) {
	const both = "new sessions, udp: yes"
	known := regexp.MustCompile("^new (sessions|connections|flows)$")
	inherited := map[string]string{}
	for _, k := range docKeys(t) {
		path := k.path()
		name := strings.Join(path, ".")
		if path[0] == "frontends" || path[0] == "pools" {
			inherited[strings.Join(path[1:], ".")] = k.reload
		}
		if path[0] == "defaults" {
			continue
		}
		want := k.reload
		if known.MatchString(want) {
			want = "new"
		}
		for _, protocol := range []string{"tcp", "udp"} {
			want := want
			switch {
			case path[0] != "frontends":
				if protocol == "udp" {
					continue
				}
			case protocol == "udp" && (strings.HasPrefix(k.meaning, "tcp only") || slices.Contains([]string{"tcp", "tls"}, path[1])):
				continue
			case protocol == "tcp" && (strings.HasPrefix(k.meaning, "udp only") || path[1] == "udp"):
				continue
			case k.reload == both && protocol == "tcp":
				want = "new"
			case k.reload == both:
				want = "yes"
			}
			if got := classOf(t, protocol, k); got != want {
				t.Errorf("%s, %s: docs/configuration.md says %q, the report %q", name, protocol, k.reload, got)
			}
		}
	}
	for _, k := range docKeys(t) { // of [defaults] the report tells by those who inherit
		if path := k.path(); path[0] == "defaults" {
			if want := inherited[strings.Join(path[1:], ".")]; k.reload != want {
				t.Errorf("%s: got %q; those who inherit it have %q", strings.Join(path, "."), k.reload, want)
			}
		}
	}
}

// TestReportKnowsNoOtherKeys: the lists of keys name such as there are.
func TestReportKnowsNoOtherKeys(t *testing.T) {
	there := map[string]bool{}
	for _, k := range docKeys(t) {
		for path := k.path(); len(path) > 1; path = path[:len(path)-1] {
			there[strings.Join(path, ".")] = true
		}
	}
	for _, list := range []map[string][]string{atStart, forNew} {
		for table, keys := range list {
			for _, key := range keys {
				if !there[table+"."+key] {
					t.Errorf("no key %s.%s", table, key)
				}
			}
		}
	}
	for _, key := range slices.Concat(atOnce, atOnceUDP) {
		if !there["frontends."+key] && !there["pools."+key] {
			t.Errorf("no key %s of frontends or pools", key)
		}
	}
}
