package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
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
		"frontends.a = {bind=['*:1'],tls={certificates=[{cert='a',self_signed=['*.a','::1']}]},routes=[{match={sni=['*.A.'],not={any=[{sni_regexp=['(a']}]}},pool='p'}]}\npools.p.tls.server_name='A.'",
		"acme = {agree=true,eab_key_id='k',eab_hmac_key='AA==',directory='https://[::1]:1/'}\nfrontends.a = {bind=['*:1'],tls={acme=['a.b']}}\nengine.tls_cpus=[0]",
		"pools.p.health={kind='http',status='200-299,401',body_regexp='a+',headers=['a: b']}\npools.q.health={kind='pool',pool='p'}\npools.r={tls={},health={kind='postgres',user='u',query='q',expect='f'}}",
		"pools.p.health={kind='udp',send='\\\\x00',expect='\\\\r'}\npools.q.health={kind='exec',command=['/a','$host'],output_up='1'}\npools.r.health={kind='agent',port=1,address='::1'}",
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
			if c.Pool(r.Pool) == nil || r.Passthrough && f.TLS == nil || f.IsUDP() && (r.Passthrough || r.Match.AsksHello()) {
				t.Errorf("frontend %q: route %+v", f.Name, r)
			}
			checkMatch(t, &r.Match, 0)
		}
		if f.TLS != nil {
			checkTLS(t, c, f)
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
		if p.Health.Checks() {
			checkHealth(t, c, p)
		}
	}
	checkRanges(t, reflect.ValueOf(c).Elem())
}

// checkMatch checks conditions: there are some, in the form that they are compared in.
func checkMatch(t *testing.T, m *Match, depth int) {
	t.Helper()
	if depth > maxMatchDepth || reflect.DeepEqual(*m, Match{}) {
		t.Errorf("conditions %+v, %d deep", m, depth)
	}
	for _, p := range m.Source {
		if p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= 96 {
			t.Errorf("source %v", p)
		}
	}
	for _, name := range m.SNI {
		rest := strings.TrimPrefix(name, "*.")
		if name != strings.ToLower(name) || name != "" && (rest == "" || strings.HasSuffix(name, ".") || strings.Contains(rest, "*") || looksLikeIP(name)) {
			t.Errorf("sni %q", name)
		}
	}
	for _, list := range [][]string{m.SNIStartsWith, m.SNIEndsWith, m.SNIContains, m.SNIRegexp, m.ALPN} {
		if list != nil && len(list) == 0 || slices.Contains(list, "") {
			t.Errorf("an empty condition: %+v", m)
		}
	}
	for _, pattern := range m.SNIRegexp {
		if _, err := CompileNameRegexp(pattern); err != nil {
			t.Errorf("regexp %q: %v", pattern, err)
		}
	}
	inner := slices.Concat(m.Any, m.All)
	if m.Not != nil {
		inner = append(inner, m.Not)
	}
	for _, m := range inner {
		checkMatch(t, m, depth+1)
	}
}

// checkTLS checks that a frontend that terminates TLS has what it takes.
func checkTLS(t *testing.T, c *Config, f *Frontend) {
	t.Helper()
	if f.IsUDP() || f.ACMEChallenges || len(f.TLS.Certificates)+len(f.TLS.ACME) == 0 || len(f.TLS.ACME) > 0 && !c.ACME.Agree ||
		f.TLS.MinVersion > f.TLS.MaxVersion || f.TLS.ClientAuth != "none" && f.TLS.ClientCA == "" {
		t.Errorf("frontend %q: %+v", f.Name, f.TLS)
	}
	for _, cert := range f.TLS.Certificates {
		if !filepath.IsAbs(cert.Cert) || cert.Key != "" && !filepath.IsAbs(cert.Key) || c.At(cert) == "" {
			t.Errorf("frontend %q: %+v", f.Name, cert)
		}
	}
}

// checkHealth checks that a health check has what it takes.
func checkHealth(t *testing.T, c *Config, p *Pool) {
	t.Helper()
	h := p.Health
	if h.Timeout > h.Interval || h.IntervalDown > 0 && h.Timeout > h.IntervalDown || h.Kind == "exec" && len(h.Command) == 0 ||
		h.Kind == "http" && len(h.StatusSet) == 0 || h.Kind == "agent" && h.Port == 0 ||
		h.Kind == "pool" && (c.Pool(h.Pool) == nil || c.Pool(h.Pool).Health.Checks() && c.Pool(h.Pool).Health.Kind == "pool") {
		t.Errorf("pool %q: %v", p.Name, h)
	}
	for _, expr := range []string{h.ExpectRegexp, h.BodyRegexp} {
		if _, err := regexp.Compile(expr); err != nil {
			t.Errorf("pool %q: %v", p.Name, err)
		}
	}
}

// checkRanges checks the fields of a struct against their tags.
func checkRanges(t *testing.T, v reflect.Value) {
	t.Helper()
	for _, k := range keysOf(v.Type()) {
		f, tag := v.FieldByIndex(k.index), k.field.Tag
		switch {
		case f.Kind() == reflect.Struct && !isValue(f.Type()):
			checkRanges(t, f)
		case f.Kind() == reflect.Pointer && !f.IsNil():
			checkRanges(t, f.Elem())
		case tag.Get("range") == "":
		case f.CanInt() && !boundsOf(f.Type(), tag).contain(f.Int()), f.CanUint() && !boundsOf(f.Type(), tag).contain(int64(f.Uint())):
			t.Errorf("%v.%s: %v is not in %s", v.Type(), k.key, f, tag.Get("range"))
		}
	}
}
