package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzParse: no input makes Parse panic, errors are well formed, and what is accepted keeps every promise.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/errors/*.toml", "testdata/good/*.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	for _, text := range []string{
		"\xff\xfe", "[\x00", "a = \"\\ \"", "a='''", "a=[{", "frontends = 1", "[[pools]]", "frontends.a.bind = [':1-65535', ':1-65535']",
		"frontends.a = {bind=['*:1'],pool='p',routes=[{match={source=['::/0']},pool='p'}]}\npools.p.backends=[{address='[::1%lo]:1'}]",
		"\"\".\"\" = [{\"\"=1}]", "pools = {}\n[pools.'a.b'.tcp]\nbacklog=1\n", "defaults.tcp.keepalive='1.5s'\n", "log.output='${HOME}${'",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse("f.toml", text)
		if err != nil {
			var errs Errors
			if cfg != nil || !errors.As(err, &errs) {
				t.Fatalf("got %v and %T", cfg, err)
			}
			checkErrors(t, errs, "f.toml")
			return
		}
		checkConfig(t, cfg)
	})
}

// checkConfig checks what holds for every configuration that is accepted.
func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	names, owner := map[string]bool{}, map[spot]string{}
	total := 0
	for _, f := range c.Frontends {
		if !validName(f.Name) || names["f "+f.Name] || c.Frontend(f.Name) != f {
			t.Errorf("frontend %q: bad name", f.Name)
		}
		names["f "+f.Name] = true
		if len(f.Bind) == 0 || len(f.Addresses) < len(f.Bind) {
			t.Errorf("frontend %q: %d binds, %d addresses", f.Name, len(f.Bind), len(f.Addresses))
		}
		total += len(f.Addresses)
		for _, a := range f.Addresses {
			if !a.IsValid() || a.IP.IsValid() && a.IP.Addr().Is4In6() {
				t.Errorf("frontend %q: address %v", f.Name, a)
			}
			at := spot{f.IsUDP(), a}
			if other, taken := owner[at]; taken && (a.IsUnix() || a.IP.Port() != 0) {
				t.Errorf("%v is in %q and %q", a, f.Name, other)
			}
			owner[at] = f.Name
			if f.IsUDP() && a.IsUnix() {
				t.Errorf("frontend %q: datagrams at %v", f.Name, a)
			}
		}
		if f.Pool != "" && c.Pool(f.Pool) == nil {
			t.Errorf("frontend %q: no pool %q", f.Name, f.Pool)
		}
		for _, r := range f.Routes {
			if c.Pool(r.Pool) == nil || len(r.Match.Source) == 0 {
				t.Errorf("frontend %q: route %+v", f.Name, r)
			}
			for _, p := range r.Match.Source {
				if p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= 96 {
					t.Errorf("frontend %q: source %v", f.Name, p)
				}
			}
		}
		checkRanges(t, reflect.ValueOf(f).Elem())
	}
	if total > maxAddresses {
		t.Errorf("%d addresses", total)
	}
	if _, taken := owner[spot{address: c.Admin.Address}]; taken && !c.Admin.Address.IsUnix() && c.Admin.Address.IP.Port() != 0 {
		t.Errorf("the admin's address %v is taken", c.Admin.Address)
	}
	if a := c.Admin.Address; a.IsValid() != (c.Admin.Bind != "") || a.IP.IsValid() && !a.IP.Addr().IsLoopback() {
		t.Errorf("admin %+v", c.Admin)
	}
	for _, p := range c.Pools {
		if !validName(p.Name) || names["p "+p.Name] || c.Pool(p.Name) != p || p.TCP.Backlog != 0 {
			t.Errorf("pool %+v", p)
		}
		names["p "+p.Name] = true
		seen := map[Address]bool{}
		for _, b := range p.Backends {
			if !b.Address.IsValid() || seen[b.Address] || !b.Address.IsUnix() && b.Address.IP.Port() == 0 {
				t.Errorf("pool %q: backend %+v", p.Name, b)
			}
			seen[b.Address] = true
			checkRanges(t, reflect.ValueOf(b).Elem())
		}
		checkRanges(t, reflect.ValueOf(p).Elem())
	}
	checkRanges(t, reflect.ValueOf(c).Elem())
}

// checkRanges checks the fields of a struct against their tags.
func checkRanges(t *testing.T, v reflect.Value) {
	t.Helper()
	for _, k := range keysOf(v.Type()) {
		f, tag := v.Field(k.index), k.field.Tag
		switch {
		case f.Kind() == reflect.Struct && !isValue(f.Type()):
			checkRanges(t, f)
		case tag.Get("range") == "":
		case f.CanInt() && !boundsOf(f.Type(), tag).contain(f.Int()), f.CanUint() && !boundsOf(f.Type(), tag).contain(int64(f.Uint())):
			t.Errorf("%v.%s: %v is not in %s", v.Type(), k.key, f, tag.Get("range"))
		}
	}
}
