package engine

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestPreview: it says what Apply then does, of addresses of every kind, and opens nothing for longer than it takes.
func TestPreview(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	base := "[frontends.a]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pools.p]\nbackends = [{ address = \"" + lbtest.Refused(t) + "\" }]\n"
	r := newRig(t, []string{lbtest.Refused(t)}, nil)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().String()
	free.Close()
	more := base + "[frontends.b]\nbind = [\"" + port + "\", \"unix:" + socket + "\"]\npool = \"p\"\n[frontends.c]\nbind = [\"" + port + "\"]\nprotocol = \"udp\"\npool = \"p\"\n"
	parse := func(text string) *config.Config {
		t.Helper()
		cfg, err := config.Parse("test.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	said := func(text string) string {
		t.Helper()
		report, err := r.d.Preview(parse(text))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range report.Changes {
			all = append(all, c.String())
		}
		return strings.Join(all, "\n")
	}
	if _, err := r.d.Apply(parse(base)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time as the first
		got := said(more)
		for _, want := range []string{"listener " + port + " added", "listener unix:" + socket + " added", "frontend c added"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing:\n%s", want, got)
			}
		}
		if strings.Count(got, "listener") != 3 {
			t.Errorf("got %s", got)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket: %v", err)
		}
		if c, err := net.Dial("tcp", port); err == nil {
			c.Close()
			t.Error("somebody listens")
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		var closer interface{ Close() error }
		if network == "tcp" {
			closer, err = net.Listen("tcp", port)
		} else {
			closer, err = net.ListenPacket("udp", port)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err := r.d.Preview(parse(more))
		var bind *BindError
		if !errors.As(err, &bind) || bind.UDP != (network == "udp") {
			t.Errorf("%s is taken: %v", network, err)
		}
		closer.Close()
	}
	if _, err := r.d.Apply(parse(more)); err != nil {
		t.Fatal(err)
	}
	if got := said(more); got != "" {
		t.Errorf("nothing would change, and it says %s", got)
	}
	if got := said(base); strings.Count(got, "listener") != 3 || strings.Count(got, "removed") != 5 {
		t.Errorf("back: %s", got)
	}
	moved := strings.ReplaceAll(more, "frontends.c", "frontends.d")
	if got := said(moved); !strings.Contains(got, "listener "+port+" changed: from frontend c to d") {
		t.Errorf("moved: %s", got)
	}
}
