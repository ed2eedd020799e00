package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"awe4lb/config"
)

// role is what somebody may do. Each may also do what those before it may.
type role uint8

const (
	nobody     role = iota
	reader          // sees everything but secrets
	operator        // changes what runs, and no configuration: drain, weights, kill, reload
	configurer      // changes configurations
)

var roleNames = [...]string{"none", "read", "operate", "configure"}

func (r role) String() string { return roleNames[r] }

// roleOf returns the role of that name; config has checked it.
func roleOf(name string) role {
	for i, n := range roleNames {
		if n == name {
			return role(i)
		}
	}
	return nobody
}

// identity is who sends a request. The zero identity is somebody of whom nothing is known.
type identity struct {
	name string // of the user, token or certificate; "" for anonymous
	how  string // anonymous, basic, bearer, cookie or certificate
	role role
}

func (i identity) String() string {
	if i.name == "" {
		return i.how
	}
	return i.how + ":" + i.name
}

// access is who may do what, as the configuration says. Immutable but for what it remembers of credentials shown.
type access struct {
	anonymous role
	users     map[string]user
	tokens    []token
	clients   role // of who shows a certificate
	hosts     map[string]bool
	allowExec bool
	upgrade   []string
	gobetween bool // admin.compat
	verified  *verified
	wrongs    *wrongs
}

type user struct {
	hash []byte
	role role
}

type token struct {
	name string
	sum  [sha256.Size]byte
	role role
}

// newAccess reads what c says, and the files it names.
func newAccess(c *config.Admin) (*access, error) {
	a := &access{anonymous: roleOf(c.Anonymous), users: map[string]user{}, hosts: map[string]bool{}, allowExec: c.AllowExec, upgrade: c.Upgrade, gobetween: c.Compat == "gobetween",
		verified: newVerified(time.Minute), wrongs: newWrongs()}
	for _, u := range c.Users {
		a.users[u.Name] = user{[]byte(u.PasswordHash), roleOf(u.Role)}
	}
	for _, t := range c.Tokens {
		secret := []byte(t.Token)
		if t.File != "" {
			text, err := os.ReadFile(t.File)
			if err != nil {
				return nil, fmt.Errorf("admin.tokens.%s.file: %w", t.Name, err)
			}
			if secret = bytes.TrimSpace(text); len(secret) < 16 || len(secret) > 4096 {
				return nil, fmt.Errorf("admin.tokens.%s.file: %s holds %d bytes; want 16 to 4096", t.Name, t.File, len(secret))
			}
		}
		a.tokens = append(a.tokens, token{t.Name, sha256.Sum256(secret), roleOf(t.Role)})
	}
	if c.TLS != nil && c.TLS.ClientCA != "" {
		a.clients = roleOf(c.TLS.ClientRole)
	}
	for _, h := range c.Hosts {
		a.hosts[h] = true
	}
	return a, nil
}

// bearer returns who has that token. It looks at all of them, in the same time whichever fits.
func (a *access) bearer(secret string) (identity, bool) {
	sum, found := sha256.Sum256([]byte(secret)), identity{}
	for _, t := range a.tokens {
		if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
			found = identity{t.name, "bearer", t.role}
		}
	}
	return found, found.how != ""
}

// basic returns who has that name and password. A wrong name costs as much time as a wrong password. hashing is held.
func (a *access) basic(name, password string) (identity, bool) {
	u, known := a.users[name]
	if !known {
		if hash := a.hashFor(name); hash != nil {
			passwordFits(hash, password) // of somebody else, whatever comes of it
		}
		return identity{}, false
	}
	if !a.verified.check(name, password, u.hash) {
		return identity{}, false
	}
	return identity{name, "basic", u.role}, true
}

// hashFor returns the hash that the password of a name is held against. For one that nobody has it is that of some user, always the
// same: hashes cost as much as they were made to, and the time would tell which names there are. nil: there are no users.
func (a *access) hashFor(name string) []byte {
	u, known := a.users[name]
	if !known && len(a.users) > 0 {
		names := slices.Sorted(maps.Keys(a.users))
		u = a.users[names[a.verified.choose(name, len(names))]]
	}
	return u.hash
}

// basicAgain is basic for who has shown the password not long ago; it costs next to nothing.
func (a *access) basicAgain(name, password string) (identity, bool) {
	u, known := a.users[name]
	if !known || !a.verified.knows(name, password, u.hash) {
		return identity{}, false
	}
	return identity{name, "basic", u.role}, true
}

// basicAuth reads what follows "Basic".
func basicAuth(s string) (name, password string, ok bool) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}

// same reports whether the users of both are the same.
func (a *access) same(b *access) bool {
	return maps.EqualFunc(a.users, b.users, func(x, y user) bool { return x.role == y.role && bytes.Equal(x.hash, y.hash) })
}
