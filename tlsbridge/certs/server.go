package certs

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge"
)

// Server is how one frontend terminates TLS. Its methods that handshakes use never block.
type Server struct {
	Config *tls.Config // ticket keys, certificates and authorities change while it is in use

	// Set once, never changed.
	name         string
	table        *config.FrontendTLS
	defaultAuth  bool   // client_auth is not set
	issuer       Issuer // nil: none
	certificates *tlsbridge.Certificates
	pairs        []*pair
	authorities  *watched // of client_ca; nil: none

	// Shared: atomics.
	current atomic.Pointer[tls.Config] // what Config stands for, with the client authorities of now; nil: Config itself

	// Guarded by Keeper.mu.
	composed []composed
	warned   []string // what is odd about them, already told
}

// composed is a certificate that the frontend hands out, and what it is made of.
type composed struct {
	certificate *tlsbridge.Certificate // without a staple
	response    []byte                 // its staple; nil: none
	pair        *pair                  // nil: the issuer's
}

// ChallengeProtocol is what a client offers by ALPN, and nothing else, to make a TLS-ALPN-01 challenge (RFC 8737). A
// connection on which it was agreed on is over after the handshake.
const ChallengeProtocol = "acme-tls/1"

// Knows reports whether a certificate of the frontend has a name, which is in lower case, or will have once it is issued:
// a challenge for it must come through. Never blocks or allocates; safe from any goroutine.
func (sv *Server) Knows(name []byte) bool {
	if set := sv.certificates.Load(); set != nil && set.Has(name) {
		return true
	}
	for _, wanted := range sv.table.ACME {
		if wanted == string(name) {
			return true
		}
	}
	return false
}

// forClient is GetConfigForClient of Config.
func (sv *Server) forClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if sv.issuer != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol {
		// The CA has no certificate to show, and will not come back.
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{ChallengeProtocol}, SessionTicketsDisabled: true,
			GetCertificate: sv.issuer.Challenge}, nil
	}
	return sv.current.Load(), nil
}

// newServer returns the Server of a table, without a Config: put makes it.
func newServer(name string, t *config.FrontendTLS, defaultAuth bool, k *Keeper) *Server {
	sv := &Server{name: name, table: t, defaultAuth: defaultAuth, issuer: k.issuer, certificates: new(tlsbridge.Certificates)}
	if t.ClientCA != "" {
		sv.authorities = &watched{what: "client_ca", owner: "frontends." + name + ".tls"}
		sv.authorities.add("client_ca", t.ClientCA)
		sv.authorities.parse = func(contents map[string]file) (any, error) { return sv.build(contents["client_ca"].data) }
		sv.authorities.install = func(value any) { sv.put(value.(*tls.Config)) }
	}
	return sv
}

// build makes a configuration of the table and the contents of client_ca.
func (sv *Server) build(clientCA []byte) (*tls.Config, error) {
	t := sv.table
	if t.ClientCA != "" && len(bytes.TrimSpace(clientCA)) == 0 {
		return nil, optionError("client_ca", fmt.Errorf("%s: it is empty", t.ClientCA))
	}
	o := tlsbridge.ServerOptions{Protocol: protocol(t.MinVersion, t.MaxVersion, t.Ciphers, t.Curves, t.ALPN),
		Certificates: sv.certificates, MayBeEmpty: len(t.Certificates)+len(t.ACME) > 0, // a mistake in a file is told of the file
		ClientAuth: t.ClientAuth, ClientCA: clientCA, NoTickets: !t.SessionTickets}
	if sv.defaultAuth {
		o.ClientAuth = ""
	}
	made, err := o.Build()
	return made, inFile(err, "client_ca", t.ClientCA)
}

// put puts a configuration to use: the first becomes Config, the others stand in for it. Ticket keys are always those of
// Config, crypto/tls sees to that.
func (sv *Server) put(made *tls.Config) {
	if sv.Config != nil {
		sv.current.Store(made)
		return
	}
	sv.Config = made
	if sv.authorities != nil || sv.issuer != nil {
		made.GetConfigForClient = sv.forClient
	}
}

// candidates returns the certificates there are for the frontend: those in files, in their order, then the issuer's.
func (sv *Server) candidates() (list []composed) {
	for _, p := range sv.pairs {
		list = append(list, composed{certificate: p.certificate, pair: p})
	}
	for _, name := range sv.table.ACME {
		if sv.issuer == nil {
			break
		}
		c := sv.issuer.Certificate(name)
		if c != nil && !slices.ContainsFunc(list, func(o composed) bool { return sameCertificate(o.certificate, c) }) {
			list = append(list, composed{certificate: c})
		}
	}
	return list
}

func sameCertificate(a, b *tlsbridge.Certificate) bool { return a.Fingerprint() == b.Fingerprint() }

// use makes list what handshakes get from now on, and returns what is odd about it. An empty one changes nothing.
func (sv *Server) use(list []composed) (warnings []string) {
	same := func(a, b composed) bool {
		return sameCertificate(a.certificate, b.certificate) && bytes.Equal(a.response, b.response)
	}
	if len(list) == 0 || slices.EqualFunc(list, sv.composed, same) {
		return nil
	}
	certs := make([]*tlsbridge.Certificate, len(list))
	for i, c := range list {
		if certs[i] = c.certificate; c.response != nil {
			certs[i] = c.certificate.WithStaple(c.response)
		}
	}
	set, err := tlsbridge.NewCertificateSet(certs)
	if err != nil {
		panic("certs: " + err.Error()) // only for an empty list
	}
	sv.certificates.Store(set)
	sv.composed = list
	for _, w := range set.Warnings {
		if !slices.Contains(sv.warned, w) {
			warnings = append(warnings, w)
		}
	}
	sv.warned = set.Warnings
	return warnings
}

// compose gives every frontend the certificates and staples there are now.
func (k *Keeper) compose(now time.Time) {
	k.dirty = true
	for _, st := range k.staples {
		st.wanted = false
	}
	for name, sv := range k.set.Servers {
		list := sv.candidates()
		for i := range list {
			if st := k.stapleFor(sv, &list[i], now); st != nil {
				st.wanted = true
				list[i].response = st.response
			}
		}
		for _, w := range sv.use(list) {
			k.log.Warn("certificates: "+w, "frontend", name)
		}
	}
	for key, st := range k.staples {
		if !st.wanted {
			delete(k.staples, key)
		}
	}
}

// frontend makes the Server of a frontend, or takes the one in use if its table is the same.
func (b *builder) frontend(f *config.Frontend) {
	t := f.TLS
	at := spot{t, "frontends." + f.Name + ".tls"}
	var pairs []*pair
	for i, files := range t.Certificates {
		if p := b.pair(spot{files, fmt.Sprintf("%s.certificates[%d]", at.path, i)}, files, t.OCSPStapling); p != nil {
			pairs = append(pairs, p)
		}
	}
	sv := b.old.Servers[f.Name]
	if sv != nil && reflect.DeepEqual(sv.table, t) {
		b.set.Servers[f.Name] = sv
		if sv.authorities != nil {
			if r, err := sv.authorities.read(); err != nil {
				b.fail(at, err)
			} else {
				b.keep(sv.authorities, r)
			}
		}
		return
	}
	sv = newServer(f.Name, t, t.ClientAuth == "none" && b.cfg.At(&t.ClientAuth) == "", b.k)
	b.set.Servers[f.Name] = sv
	if sv.authorities != nil {
		if r, err := sv.authorities.read(); err != nil {
			b.fail(at, err)
		} else {
			b.keep(sv.authorities, r)
		}
	} else if made, err := sv.build(nil); err != nil {
		b.fail(at, err)
	} else {
		sv.put(made)
	}
	if len(b.errs) > 0 {
		return // there will be no set
	}
	// It serves as it is, also before Commit.
	sv.pairs = pairs
	if t.SessionTickets {
		b.set.tickets().Apply(sv.Config, f.Name, b.now)
	}
	list := sv.candidates()
	for i := range list {
		if p := list[i].pair; p != nil {
			list[i].certificate = b.read[p.cert].value.(*tlsbridge.Certificate)
		}
		if st := b.k.staples[stapleKey(&list[i])]; st != nil && t.OCSPStapling {
			list[i].response = st.response
		}
	}
	for _, w := range sv.use(list) {
		b.note(at, "certificates", "%s", w)
	}
}
