package config

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// checkACME checks [acme], and that it is there for the frontends that want it.
func (d *decoder) checkACME(a *ACME) {
	table, given := d.places[a]
	if table.bad {
		return
	}
	d.localFile(&a.CA)
	if p := d.places[&a.Storage]; a.Storage == "" && !p.bad {
		d.refuse(p, complaint{want: "the path of a folder"})
	}
	d.localFolder(&a.Storage)
	d.checkDirectory(&a.Directory)
	d.checkEmail(&a.Email)
	d.checkEAB(a)

	wanted := d.wantedNames()
	if wanted == nil {
		if given {
			d.warn(table, "no frontend has names in tls.acme, so that no certificate is asked for", "")
		}
		for _, f := range d.cfg.Frontends {
			if p, ok := d.places[&f.ACMEChallenges]; ok && f.ACMEChallenges && !f.IsUDP() {
				d.warn(p, "no frontend has names in tls.acme, so that there are no challenges to answer", "")
			}
		}
		return
	}
	const hint = "read the terms of service of the certificate authority first"
	switch p, ok := d.places[&a.Agree]; {
	case a.Agree || p.bad:
	case ok:
		d.fail(p, Error{Got: "false", Want: "true, for the names in " + wanted.path, Hint: hint})
	default:
		d.fail(*wanted, Error{Problem: "needs agree = true in [acme]", Hint: hint})
	}
}

// wantedNames returns the first place where a frontend wants certificates by ACME, or nil.
func (d *decoder) wantedNames() *place {
	for _, f := range d.cfg.Frontends {
		if f.TLS == nil {
			continue
		}
		if p, ok := d.places[&f.TLS.ACME]; ok && len(f.TLS.ACME) > 0 {
			return &p
		}
	}
	return nil
}

func (d *decoder) checkDirectory(directory *string) {
	p, ok := d.places[directory]
	if !ok || p.bad {
		return
	}
	c := complaint{want: "an https URL such as https://acme-v02.api.letsencrypt.org/directory"}
	u, err := url.Parse(*directory)
	switch {
	case err != nil:
	case u.Scheme == "" && !strings.HasPrefix(*directory, "/"):
		c.fix = "https://" + *directory
	case u.Scheme == "http":
		c.fix = "https" + strings.TrimPrefix(*directory, u.Scheme)
	case u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
	case u.User != nil || u.Fragment != "":
		c.hint = "without a user, a password or a fragment"
	default:
		return
	}
	d.refuse(p, c)
}

func (d *decoder) checkEmail(email *string) {
	p, ok := d.places[email]
	if !ok || p.bad || *email == "" {
		return
	}
	c := complaint{want: "an address such as ops@example.com"}
	if rest, ok := strings.CutPrefix(*email, "mailto:"); ok {
		c.fix = rest
		d.refuse(p, c)
		return
	}
	if name, host, ok := strings.Cut(*email, "@"); !ok || name == "" || host == "" || strings.ContainsAny(*email, " ,;<>") || strings.Contains(host, "@") {
		d.refuse(p, c)
	}
}

// checkEAB checks the external account binding: both or neither.
func (d *decoder) checkEAB(a *ACME) {
	id, key := d.places[&a.EABKeyID], d.places[&a.EABHMAC]
	switch {
	case id.bad || key.bad:
		return
	case a.EABKeyID != "" && a.EABHMAC == "":
		d.fail(id, Error{Got: id.got(), Want: "eab_hmac_key too"})
	case a.EABKeyID == "" && a.EABHMAC != "":
		d.fail(key, Error{Got: key.got(), Want: "eab_key_id too"})
	}
	a.EABHMAC = strings.TrimRight(a.EABHMAC, "=")
	if _, err := base64.RawURLEncoding.DecodeString(a.EABHMAC); err != nil {
		d.refuse(key, complaint{want: "base64url, as the certificate authority gives it"})
	}
}

// parseACMEName reads a name to get a certificate for.
func parseACMEName(s string) (string, *complaint) {
	name, c := parseName(s, nameWant, false)
	if c != nil && strings.Contains(s, "*") {
		c.hint = "for a wildcard the certificate authority wants an entry in DNS, which awe4lb does not make"
	}
	return name, c
}
