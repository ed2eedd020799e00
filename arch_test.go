package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rank orders the rooms of the house: a package may import only packages of a lower rank (docs/architecture.md). Rooms of
// one rank know nothing of each other.
var rank = map[string]int{
	"awe4lb":                     7,
	"awe4lb/internal/cli":        6,
	"awe4lb/admin":               5,
	"awe4lb/internal/logs":       5,
	"awe4lb/engine":              4,
	"awe4lb/tlsbridge/certs":     3,
	"awe4lb/tlsbridge/acme":      3,
	"awe4lb/acl":                 2,
	"awe4lb/balancer":            2,
	"awe4lb/tlsbridge":           2,
	"awe4lb/discovery":           2,
	"awe4lb/health":              3,
	"awe4lb/internal/convert":    3,
	"awe4lb/config":              1,
	"awe4lb/engine/loop":         1,
	"awe4lb/engine/proxyproto":   1,
	"awe4lb/internal/privilege":  1,
	"awe4lb/internal/socketfile": 1,
	"awe4lb/internal/systemd":    1,
	"awe4lb/internal/top":        2,
	"awe4lb/internal/client":     1,
	"awe4lb/internal/human":      0,
	"awe4lb/internal/lbtest":     0,
	"awe4lb/internal/filestamp":  0,
	"awe4lb/internal/confstore":  0,
	"awe4lb/internal/fuzz":       0,
}

// only says which rooms may use a third party. A room covers the packages below it.
var only = map[string][]string{
	"github.com/panjf2000/gnet/v2/pkg/netpoll": {"awe4lb/engine/loop"},
	"github.com/panjf2000/gnet/v2":             {"awe4lb/engine"},
	"golang.org/x/sys":                         {"awe4lb/engine"},
	"golang.org/x/crypto/cryptobyte":           {"awe4lb/tlsbridge"},
	"golang.org/x/crypto/ocsp":                 {"awe4lb/tlsbridge/certs"},
	"github.com/gaissmai/bart":                 {"awe4lb/acl"},
	"github.com/valyala/fasthttp":              {"awe4lb/admin"},
	"github.com/fasthttp/router":               {"awe4lb/admin"},
	"golang.org/x/crypto/bcrypt":               {"awe4lb/admin", "awe4lb/internal/cli"},
	"golang.org/x/crypto/argon2":               {"awe4lb/admin"},
	"golang.org/x/term":                        {"awe4lb/internal/cli"},
	"github.com/VictoriaMetrics/metrics":       {"awe4lb/admin"},
	"github.com/BurntSushi/toml":               {"awe4lb/config", "awe4lb/discovery"},
	"github.com/spf13/cobra":                   {"awe4lb/internal/cli"},
	"github.com/spf13/pflag":                   {"awe4lb/internal/cli"},
	"charm.land/bubbletea/v2":                  {"awe4lb/internal/top"},
	"github.com/charmbracelet/x/ansi":          {"awe4lb/internal/top"},
	"golang.org/x/net/dns/dnsmessage":          {"awe4lb/internal/cli"},
	"github.com/miekg/dns":                     {"awe4lb/discovery"},
	"github.com/coder/websocket":               {"awe4lb/discovery"},
	"go.yaml.in/yaml/v3":                       {"awe4lb/discovery"},
	"github.com/coreos/go-systemd":             {"awe4lb/internal/systemd"},
	"kernel.org/pub/linux/libs/security":       {"awe4lb/internal/privilege"},
	"github.com/caddyserver/certmagic":         {"awe4lb/tlsbridge/acme"},
	"github.com/mholt/acmez/v3":                {"awe4lb/tlsbridge/acme"},
	"go.uber.org/zap":                          {"awe4lb/tlsbridge/acme"}, // certmagic wants one, silent
}

// imports returns what the packages of this module import, test files apart, with a file that does.
func imports(t *testing.T) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := "awe4lb"
		if dir := filepath.ToSlash(filepath.Dir(path)); dir != "." {
			pkg += "/" + dir
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if found[pkg] == nil {
			found[pkg] = map[string]string{}
		}
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			found[pkg][name] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

func TestImportsGoDownwards(t *testing.T) {
	for pkg, is := range imports(t) {
		if within(pkg, "awe4lb/bench") {
			for name, file := range is {
				if strings.HasPrefix(name, "awe4lb/") && !within(name, "awe4lb/bench") {
					t.Errorf("%s imports %s: the bench knows awe4lb as its users do, by its command line", file, name)
				}
			}
			continue
		}
		from, ok := rank[pkg]
		if !ok {
			t.Errorf("%s has no rank: see docs/architecture.md before adding a room", pkg)
		}
		for name, file := range is {
			if !within(name, "awe4lb") {
				continue
			}
			if to, ok := rank[name]; ok && to >= from {
				t.Errorf("%s imports %s: rank %d may not import rank %d", file, name, from, to)
			}
			if within(name, "awe4lb/internal/lbtest") {
				t.Errorf("%s imports %s, which is for tests", file, name)
			}
		}
	}
}

func TestThirdPartiesStayInTheirRooms(t *testing.T) {
	for pkg, is := range imports(t) {
		for name, file := range is {
			if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
				continue // standard library
			}
			// The longest prefix decides.
			best, rooms := "", []string(nil)
			for third, allowed := range only {
				if within(name, third) && len(third) > len(best) {
					best, rooms = third, allowed
				}
			}
			if best == "" {
				t.Errorf("%s imports %s, which is not on the list: weigh it, and write a decision", file, name)
				continue
			}
			ok := false
			for _, room := range rooms {
				ok = ok || within(pkg, room)
			}
			if !ok {
				t.Errorf("%s imports %s: only %v may", file, name, rooms)
			}
		}
	}
}
