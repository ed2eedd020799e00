package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const docsFile = "../docs/configuration.md"

// docsRow is one line of a table of keys in docs/configuration.md.
type docsRow struct{ typ, def, bounds string }

// readDocs returns the rows of docs/configuration.md, by table label and key.
func readDocs(t *testing.T) map[string]map[string]docsRow {
	t.Helper()
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]map[string]docsRow)
	code := regexp.MustCompile("`([^`]+)`")
	var labels []string
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "#"):
			labels = nil
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				labels = append(labels, m[1])
				if rows[m[1]] != nil {
					t.Errorf("%s has two sections", m[1])
				}
				rows[m[1]] = make(map[string]docsRow)
			}
		case labels != nil && strings.HasPrefix(line, "| `"):
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			if len(cells) != 6 {
				t.Errorf("%d cells in %s", len(cells), line)
				continue
			}
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			key := strings.Trim(cells[0], "`")
			for _, label := range labels {
				rows[label][key] = docsRow{cells[1], cells[2], cells[3]}
			}
			if !regexp.MustCompile("^(yes|restart|new sessions|new connections|new flows|new sessions, udp: yes)$").MatchString(cells[4]) {
				t.Errorf("%s.%s: reload is %q", labels[0], key, cells[4])
			}
		}
	}
	return rows
}

// TestDocsKeys: docs/configuration.md has the tables and keys of the structs, with their types, defaults and ranges, and
// no others.
func TestDocsKeys(t *testing.T) {
	rows := readDocs(t)
	cfg, err := Parse("test.toml", []byte(documentWith("[pools.other]", "policy", `"random"`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables()[1:] {
		holder := find(reflect.ValueOf(cfg), tb.typ, tb.label)
		section, ok := rows[tb.label]
		if !ok {
			t.Errorf("%s is not in the document", tb.label)
		}
		for _, k := range keysOf(tb.typ) {
			got, ok := section[k.key]
			if !ok {
				t.Errorf("%s: %s is not in the document", tb.label, k.key)
				continue
			}
			delete(section, k.key)
			want := docsRow{docsType(k.field.Type), docsDefault(tb, k, holder.FieldByIndex(k.index)), docsRange(k.field)}
			if k.key == "bind" && tb.typ == reflect.TypeFor[Frontend]() {
				want.bounds = fmt.Sprintf("1 to %d addresses in all frontends", maxAddresses)
			}
			if got != want {
				t.Errorf("%s.%s:\n got %+v\nwant %+v", tb.label, k.key, got, want)
			}
		}
		for key := range section {
			t.Errorf("%s: %s is in the document and not in the struct", tb.label, key)
		}
		delete(rows, tb.label)
	}
	for label := range rows {
		t.Errorf("%s is in the document and not in the structs", label)
	}
}

func docsType(t reflect.Type) string {
	switch t {
	case typeDuration:
		return "duration"
	case typeSize:
		return "size"
	case typeAddress:
		return "address"
	case typePrefix:
		return "prefix"
	case typeIP:
		return "IP address"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "integer"
	case reflect.Uint32:
		return "octal string"
	case reflect.Slice:
		switch elem := t.Elem(); {
		case elem.Kind() == reflect.Pointer:
			return "array of tables"
		case elem == typePrefix:
			return "array of prefixes"
		case elem == typeIP:
			return "array of addresses"
		case elem.Kind() == reflect.Int:
			return "array of integers"
		}
		return "array of strings"
	case reflect.Struct, reflect.Pointer:
		return "table"
	}
	return "string"
}

func docsDefault(tb table, k structKey, v reflect.Value) string {
	owner := tb.typ
	inherits := strings.HasPrefix(tb.label, "[frontends") || strings.HasPrefix(tb.label, "[pools")
	_, inDefaults := reflect.TypeFor[Defaults]().FieldByName(k.field.Name)
	switch name := owner.Name() + "." + k.key; {
	case name == "Frontend.bind", name == "Route.match", name == "Route.pool", name == "Backend.address", name == "CertificateFiles.cert",
		name == "AdminUser.password_hash", name == "AdminTLS.cert",
		slices.Contains([]string{"Discovery.kind", "Source.kind", "FileSource.path", "ExecSource.command", "HTTPSource.url", "DNSSource.name",
			"DNSSource.port", "SRVSource.name", "ConsulSource.url", "ConsulSource.service",
			"EtcdSource.endpoints", "EtcdSource.prefix", "RedisSource.url", "RedisSource.name"}, name):
		return "required"
	case name == "Discovery.interval":
		return "`\"10s\"`" // that of a file is shorter
	case name == "ACME.storage":
		return "`\"acme\"`" // made absolute
	case name == "Admin.configs":
		return "`\"awe4lb.d\"`" // made absolute
	case name == "Admin.anonymous", name == "AdminToken.token":
		return "" // it depends; required or not
	case name == "PoolTLS.starttls":
		return "the frontend's"
	case name == "AccessLog.format":
		return "`log.format`"
	case name == "Frontend.pool":
		return "`\"\"`" // the test document sets it
	case inherits && inDefaults && v.Type() == typeDuration && owner != reflect.TypeFor[UDP]():
		return "`[defaults]`"
	case name == "Pool.policy":
		return "`\"roundrobin\"`"
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return fmt.Sprintf("`%q`", shortDuration(int64(x)))
	case Size:
		return fmt.Sprintf("`%q`", x.String())
	case uint32:
		return fmt.Sprintf("`\"%04o\"`", x)
	case string, Secret:
		return "`" + strconv.Quote(reflect.ValueOf(x).String()) + "`"
	case int, bool:
		return fmt.Sprintf("`%v`", x)
	}
	return ""
}

func docsRange(f reflect.StructField) string {
	if words := strings.Fields(f.Tag.Get("oneof")); len(words) > 0 {
		return "`" + strings.Join(quoted(words), "`, `") + "`"
	}
	if f.Tag.Get("range") == "" {
		return ""
	}
	b := boundsOf(f.Type, f.Tag)
	lo, hi, zero := fmt.Sprint(b.lo), fmt.Sprint(b.hi), "0, or "
	switch {
	case f.Type == typeDuration:
		lo, hi, zero = shortDuration(b.lo), shortDuration(b.hi), "0s, or "
	case f.Type == typeSize:
		lo, hi = Size(b.lo).String(), Size(b.hi).String()
	case f.Type.Kind() == reflect.Uint32:
		lo, hi = fmt.Sprintf("%04o", b.lo), fmt.Sprintf("%04o", b.hi)
	}
	if !b.zero {
		zero = ""
	}
	return zero + lo + " to " + hi
}

// TestDocsExamples: each toml block of these documents is a configuration without a warning, or is followed by a text block
// with its very mistakes.
func TestDocsExamples(t *testing.T) {
	t.Setenv("APP_ADDRESS", "10.0.0.1:80")
	var blocks [][]string
	for file, least := range map[string]int{docsFile: 6, "../docs/discovery.md": 6, "../docs/acme.md": 1,
		"../docs/udp-transparent.md": 1, "../README.md": 2} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile("(?s)```toml\n(.*?)```\n(?:\n```text\n(.*?)```\n)?").FindAllStringSubmatch(string(text), -1)
		if len(found) < least {
			t.Fatalf("%s: %d examples", file, len(found))
		}
		blocks = append(blocks, found...)
	}
	for _, b := range blocks {
		cfg, err := Parse("awe4lb.toml", []byte(b[1]))
		switch {
		case b[2] != "":
			if err == nil || err.Error()+"\n" != b[2] {
				t.Errorf("the mistakes of\n%s\ngot:\n%v\nwant:\n%s", b[1], err, b[2])
			}
		case err != nil:
			t.Errorf("the example\n%s\n%v", b[1], err)
		case len(cfg.Warnings) > 0:
			t.Errorf("the example\n%s\nwarnings: %q", b[1], cfg.Warnings)
		}
	}
}

// TestDocsUnits: comments in the files for systemd and sysctl of this page have lines of their own. systemd takes one behind a
// value for a part of it, and then does not use the value.
func TestDocsUnits(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile("(?s)```ini\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(files) != 2 {
		t.Fatalf("%d files; want the unit and the sysctls", len(files))
	}
	for _, f := range files {
		for line := range strings.Lines(f[1]) {
			if i := strings.IndexAny(line, "#;"); i > 0 {
				t.Errorf("a comment behind a value: %s", line)
			}
		}
	}
}
