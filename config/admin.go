package config

import (
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// checkAdmin checks [admin]: above all that nobody can reach it from outside who need not say who they are.
func (d *decoder) checkAdmin(a *Admin, claims *claims) {
	d.checkAdminAddress(a, claims)
	d.localFolder(&a.Configs)
	for i := range a.Hosts {
		d.checkAdminHost(&a.Hosts[i])
	}
	for _, u := range a.Users {
		table := d.places[u]
		if !table.bad && !d.checkMissing(&u.PasswordHash, table.key("password_hash"), hashWant) {
			d.checkPasswordHash(&u.PasswordHash)
		}
	}
	for _, t := range a.Tokens {
		d.checkToken(t)
	}
	d.checkAdminTLS(a.TLS)
	if p, ok := d.places[&a.Upgrade]; ok && !p.bad && len(a.Upgrade) > 0 && !filepath.IsAbs(a.Upgrade[0]) {
		d.fail(p.index(0), Error{Got: quote(a.Upgrade[0]), Want: "the absolute path of a program"})
	}
	d.checkPush(&a.Push, a.Bind != "")
	if d.isSet(&a.Anonymous) {
		return
	}
	a.Anonymous = "configure"
	if a.HasCredentials() {
		a.Anonymous = "none"
	}
}

func (d *decoder) checkAdminAddress(a *Admin, claims *claims) {
	p, set := d.places[&a.Bind]
	if a.Bind == "" || p.bad {
		return
	}
	addr, c := parseAdmin(a.Bind)
	if c != nil {
		d.refuse(p, *c)
		return
	}
	a.Address = addr
	if !addr.IsUnix() && !addr.IP.Addr().IsLoopback() {
		d.checkOpenToNetwork(a, p)
	}
	owner, taken := claims.owner[spot{address: addr}]
	switch {
	case taken && set:
		d.fail(p, Error{Got: p.got(), Want: "an address of its own", Hint: owner.at.says(), Other: owner.at.path})
	case taken:
		d.fail(owner.at, Error{Got: owner.at.got(), Want: "an address of its own",
			Hint: a.Bind + " is where the admin listens unless admin.bind says otherwise"})
	}
}

// checkOpenToNetwork checks an admin that others than this host reach; p is the place of its address.
func (d *decoder) checkOpenToNetwork(a *Admin, p place) {
	if !a.HasCredentials() {
		d.refuse(p, complaint{
			want: "a loopback address or a unix socket",
			hint: "other addresses need users, tokens or tls.client_ca: whoever reaches the admin controls the balancer",
		})
		return
	}
	if at, ok := d.places[&a.Anonymous]; ok && !at.bad && (a.Anonymous == "operate" || a.Anonymous == "configure") {
		d.refuse(at, complaint{want: "none or read, where others than this host reach the admin"})
	}
	if a.TLS == nil {
		d.warn(p, "passwords and tokens cross the network in the clear", "write an [admin.tls] table, or listen on loopback behind a tunnel")
	}
}

func (d *decoder) checkAdminHost(host *string) {
	p := d.places[host]
	if p.bad {
		return
	}
	name := strings.ToLower(strings.Trim(*host, "[]"))
	if _, err := netip.ParseAddr(name); err != nil && (name == "" || strings.ContainsAny(name, "/:*@ ") || len(name) > 253) {
		d.refuse(p, complaint{want: "a name or an IP address, without a port"})
		return
	}
	*host = name
}

const hashWant = "a bcrypt or argon2id hash, as `awe4lb password` makes it"

// The most that checking an argon2id password may cost: memory in KiB and rounds. Whoever logs in has us spend it.
const (
	maxArgonMemory = 1 << 18
	maxArgonRounds = 16
)

func (d *decoder) checkPasswordHash(hash *string) {
	p := d.places[hash]
	if p.bad || isBcrypt(*hash) || isArgon2id(*hash) {
		return
	}
	d.refuse(p, complaint{want: hashWant})
}

func isBcrypt(s string) bool {
	if len(s) != 60 || s[0] != '$' || s[1] != '2' || !strings.ContainsRune("aby", rune(s[2])) || s[3] != '$' || s[6] != '$' {
		return false
	}
	cost, err := strconv.Atoi(s[4:6])
	return err == nil && cost >= 4 && cost <= 15
}

// isArgon2id reports whether s is $argon2id$v=19$m=MEMORY,t=ROUNDS,p=LANES$SALT$HASH.
func isArgon2id(s string) bool {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return false
	}
	limits := []struct {
		key  string
		most int
	}{{"m=", maxArgonMemory}, {"t=", maxArgonRounds}, {"p=", 64}}
	costs := strings.Split(parts[3], ",")
	if len(costs) != len(limits) {
		return false
	}
	for i, l := range limits {
		n, err := strconv.Atoi(strings.TrimPrefix(costs[i], l.key))
		if err != nil || !strings.HasPrefix(costs[i], l.key) || n < 1 || n > l.most {
			return false
		}
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	return err1 == nil && err2 == nil && len(salt) >= 8 && len(sum) >= 16 && len(sum) <= 128
}

// minToken is the length of the shortest token, in bytes.
const minToken = 16

func (d *decoder) checkToken(t *AdminToken) {
	table := d.places[t]
	if table.bad {
		return
	}
	d.localFile(&t.File)
	token, isSet := d.places[&t.Token]
	file, fromFile := d.places[&t.File]
	switch {
	case isSet && fromFile:
		d.fail(file, Error{Problem: "token is given too", Want: "one of the two"})
	case !isSet && !fromFile:
		d.fail(table, Error{Problem: "token and file are missing", Want: "one of the two"})
	case isSet && !token.bad && len(t.Token) < minToken:
		d.refuse(token, complaint{want: "at least 16 bytes", hint: "openssl rand -hex 32 makes a good one"})
	case fromFile && !file.bad && t.File == "":
		d.refuse(file, complaint{want: "the path of a file"})
	}
}

func (d *decoder) checkAdminTLS(t *AdminTLS) {
	if t == nil || d.places[t].bad {
		return
	}
	d.checkMissing(&t.Cert, d.places[t].key("cert"), "the path of a PEM file")
	d.localFile(&t.Cert)
	d.localFile(&t.Key)
	d.localFile(&t.ClientCA)
	if p, ok := d.places[&t.ClientRole]; ok && t.ClientCA == "" {
		d.fail(p, Error{Problem: "nobody has this role", Hint: "client_ca says whose certificates count"})
	}
}
