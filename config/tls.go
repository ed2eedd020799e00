package config

import (
	"slices"
	"strings"
)

// What the tables about TLS ask for. Names of cipher suites and curves, and what is in files, are for tlsbridge to judge.

// checkFrontendTLS checks what a frontend says of TLS, terminated or passed through.
func (d *decoder) checkFrontendTLS(f *Frontend) {
	if f.IsUDP() {
		return // each of the keys is a mistake, and told
	}
	if t := f.TLS; t != nil && !d.places[t].bad {
		d.checkCertificates(t)
		d.checkClientAuth(t)
		d.checkVersions(&t.MinVersion, &t.MaxVersion)
		d.once(&t.Ciphers, "one cipher suite or more")
		d.once(&t.Curves, "one curve or more")
		d.each(t.ALPN, parseALPN)
		d.once(&t.ALPN, "one protocol or more")
	}
	asksName, asksHello := f.AsksName(), f.AsksHello() || d.hashesName(f)
	if p, ok := d.places[&f.ACMEChallenges]; ok && f.ACMEChallenges {
		problem := ""
		switch {
		case f.TLS != nil:
			problem = "challenges are plain HTTP, and this frontend terminates TLS"
		case asksHello || f.STARTTLS != "none":
			problem = "challenges are plain HTTP, and this frontend waits for a ClientHello"
		}
		if problem != "" {
			d.fail(p, Error{Problem: problem, Hint: "put it into a frontend for port 80"})
		}
	}
	if p, ok := d.places[&f.UnknownName]; ok && !p.bad && !asksName && (f.TLS == nil || f.UnknownName != "reject") {
		d.warn(p, "no route of this frontend looks at the name, so that this has no effect", "")
	}
	if p, ok := d.places[&f.STARTTLS]; ok && f.STARTTLS != "none" && f.TLS == nil && !asksHello {
		d.warn(p, "there is neither a tls table nor a route on a name or protocol, so that this has no effect", "")
	}
}

// checkCertificates checks where the certificates of a frontend come from.
func (d *decoder) checkCertificates(t *FrontendTLS) {
	d.each(t.ACME, parseACMEName)
	d.once(&t.ACME, "one name or more")
	table := d.places[t]
	switch p, ok := d.places[&t.Certificates]; {
	case ok && t.Certificates != nil && len(t.Certificates) == 0:
		d.fail(p, Error{Got: "an empty array", Want: "one certificate or more", Hint: "with names in acme, leave the key out"})
	case !ok && !d.isSet(&t.ACME):
		d.fail(table.key("certificates"), Error{Problem: "is missing", Want: "certificates = [{ cert = …, key = … }], or names in acme"})
	}
	first := make(map[string]place) // by file
	for _, c := range t.Certificates {
		table := d.places[c]
		if table.bad {
			continue
		}
		d.localFile(&c.Key)
		d.localFile(&c.OCSP)
		d.each(c.SelfSigned, parseSelfSigned)
		d.once(&c.SelfSigned, "one name or address, or more")
		if d.checkMissing(&c.Cert, table.key("cert"), "a PEM file with the certificate and its chain") {
			continue
		}
		at := d.places[&c.Cert]
		if c.Cert == "" && !at.bad {
			d.refuse(at, complaint{want: "the path of a PEM file"})
			continue
		}
		d.localFile(&c.Cert)
		if other, twice := first[c.Cert]; twice && !at.bad {
			d.fail(at, Error{Got: at.got(), Want: "each certificate once in a frontend", Hint: other.says(), Other: other.path})
		}
		first[c.Cert] = at
	}
}

// checkClientAuth checks what clients must show, and fills in what client_ca alone means.
func (d *decoder) checkClientAuth(t *FrontendTLS) {
	d.localFile(&t.ClientCA)
	if t.ClientCA != "" && !d.isSet(&t.ClientAuth) {
		t.ClientAuth = "require"
	}
	p, ok := d.places[&t.ClientAuth]
	switch {
	case !ok || p.bad:
	case t.ClientAuth == "none" && t.ClientCA != "":
		d.warn(d.places[&t.ClientCA], `client_auth is "none", so that this has no effect`, "")
	case t.ClientAuth != "none" && t.ClientCA == "" && !d.places[&t.ClientCA].bad:
		d.fail(p, Error{Got: p.got(), Want: "client_ca too", Hint: "without it every certificate would do, also one that the client has made"})
	}
}

func (d *decoder) checkVersions(least, most *string) {
	if *least <= *most { // as text: all have one digit before the dot and one after it
		return
	}
	p, ok := d.places[least]
	want := "at most max_version, which is " + *most
	if !ok {
		p, want = d.places[most], "at least min_version, which is "+*least
	}
	if !p.bad {
		d.fail(p, Error{Got: p.got(), Want: want})
	}
}

// checkPoolTLS checks how a pool speaks TLS to its backends.
func (d *decoder) checkPoolTLS(p *Pool) {
	t := p.TLS
	if t == nil || d.places[t].bad {
		return
	}
	table := d.places[t]
	d.localFile(&t.CA)
	d.localFile(&t.Cert)
	d.localFile(&t.Key)
	if at, ok := d.places[&t.Key]; ok && !at.bad && t.Key != "" && t.Cert == "" && !d.places[&t.Cert].bad {
		d.fail(at, Error{Got: at.got(), Want: "cert too", Hint: "a key is of no use without its certificate"})
	}
	d.checkVersions(&t.MinVersion, &t.MaxVersion)
	d.once(&t.Ciphers, "one cipher suite or more")
	d.once(&t.Curves, "one curve or more")
	d.each(t.ALPN, parseALPN)
	d.once(&t.ALPN, "one protocol or more")
	if at, ok := d.places[&t.ServerName]; ok && !at.bad {
		name, c := parseServerName(t.ServerName)
		if c != nil {
			d.refuse(at, *c)
		}
		t.ServerName = name
	} else if !ok && !t.InsecureSkipVerify {
		i := slices.IndexFunc(p.Backends, func(b *Backend) bool { return b.Address.IsUnix() })
		if i >= 0 {
			d.fail(table.key("server_name"), Error{Problem: "is missing", Want: "whom to expect", Hint: d.places[&p.Backends[i].Address].path + " is a unix socket, which has no IP address to expect"})
		}
	}
	if at, ok := d.places[&t.InsecureSkipVerify]; ok && t.InsecureSkipVerify {
		d.warn(at, "any certificate is taken: whoever gets between awe4lb and the backends can read and change everything",
			"set ca to those who signed the backends' certificates, and server_name to the name in them")
	}
}

// checkNestedTLS warns where clients speak TLS all the way to a pool that puts TLS of its own around it.
func (d *decoder) checkNestedTLS(f *Frontend) {
	asksHello := f.TLS == nil && (f.AsksHello() || d.hashesName(f))
	check := func(name *string, through bool) {
		pool := d.cfg.Pool(*name)
		if !through || pool == nil || pool.TLS == nil {
			return
		}
		d.warn(d.places[name], "TLS of the clients is passed through here, and the pool has a tls table: TLS inside TLS",
			"leave out the one of the pool, or terminate TLS in the frontend")
	}
	for _, r := range f.Routes {
		check(&r.Pool, asksHello || r.Passthrough)
	}
	if d.isSet(&f.Pool) {
		check(&f.Pool, asksHello)
	}
}

// checkCPUs checks where the TLS workers may run.
func (d *decoder) checkCPUs(cpus *[]int) {
	p, ok := d.places[cpus]
	if ok && *cpus != nil && len(*cpus) == 0 {
		d.fail(p, Error{Got: "an empty array", Want: "one CPU or more", Hint: "for all, leave the key out"})
	}
	for i, cpu := range *cpus {
		at := d.places[&(*cpus)[i]]
		if j := slices.Index(*cpus, cpu); j < i && !at.bad && !d.places[&(*cpus)[j]].bad {
			d.fail(at, Error{Got: strings.TrimPrefix(describe(int64(cpu)), "the integer "), Want: "each CPU once"})
		}
	}
}
