package acme

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challenges are the questions that a CA may ask at this moment, with our answers. Readers take no lock.
type challenges struct {
	mu     sync.Mutex              // held by writers of own
	own    atomic.Pointer[answers] // to our orders; nil: none
	others atomic.Pointer[answers] // to orders of processes that share the folder (sharing.go); nil: none

	tlsALPN, tlsALPNUnknown, http, httpUnknown atomic.Uint64
}

// answers is immutable.
type answers struct {
	byToken map[string]string          // HTTP-01: the key authorization
	byName  map[string]tlsALPNResponse // TLS-ALPN-01; of two for a name the later
}

type tlsALPNResponse struct {
	token string
	pair  *tls.Certificate
}

// change stores a copy of our answers that edit has changed.
func (c *challenges) change(edit func(*answers)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	updated := &answers{byToken: map[string]string{}, byName: map[string]tlsALPNResponse{}}
	if old := c.own.Load(); old != nil {
		maps.Copy(updated.byToken, old.byToken)
		maps.Copy(updated.byName, old.byName)
	}
	edit(updated)
	c.own.Store(updated)
}

// add puts the answer to a challenge among a.
func (a *answers) add(ch *challenge) error {
	switch ch.Type {
	case acme.ChallengeTypeHTTP01:
		a.byToken[ch.Token] = ch.KeyAuthorization
	case acme.ChallengeTypeTLSALPN01:
		pair, err := acmez.TLSALPN01ChallengeCert(acme.Challenge{Token: ch.Token, KeyAuthorization: ch.KeyAuthorization,
			Identifier: acme.Identifier{Type: "dns", Value: ch.Name}})
		if err != nil {
			return err
		}
		a.byName[ch.Name] = tlsALPNResponse{ch.Token, pair}
	}
	return nil
}

// remove forgets the answer to a challenge.
func (a *answers) remove(ch *challenge) {
	delete(a.byToken, ch.Token)
	if a.byName[ch.Name].token == ch.Token {
		delete(a.byName, ch.Name)
	}
}

// challenge is what answering one takes; files in the storage hold it as JSON.
type challenge struct {
	Type             string `json:"type"`
	Name             string `json:"name"`
	Token            string `json:"token"`
	KeyAuthorization string `json:"key_authorization"`
}

func (c *challenges) keyAuthorization(token string) (string, bool) {
	for _, a := range []*answers{c.own.Load(), c.others.Load()} {
		if a == nil {
			continue
		}
		if answer, ok := a.byToken[token]; ok {
			c.http.Add(1)
			return answer, true
		}
	}
	c.httpUnknown.Add(1)
	return "", false
}

func (c *challenges) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := canonical(hello.ServerName)
	for _, a := range []*answers{c.own.Load(), c.others.Load()} {
		if a == nil || !slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol) {
			continue
		}
		if response, ok := a.byName[name]; ok {
			c.tlsALPN.Add(1)
			return response.pair, nil
		}
	}
	c.tlsALPNUnknown.Add(1)
	return nil, fmt.Errorf("acme: no TLS-ALPN-01 challenge for %q goes on", name)
}
