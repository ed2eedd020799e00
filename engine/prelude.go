package engine

import (
	"net/netip"

	"awe4lb/engine/proxyproto"
	"awe4lb/tlsbridge"
	"awe4lb/tlsbridge/certs"
)

// prelude is what only those sessions have that begin with more than a connection: the client says something before it is
// routed, or an end is TLS, or a PROXY header tells who the client is, or that had to wait for a place. The many others share
// one that is empty, which keeps a plain session small. Owned by the shard's goroutine.
type prelude struct {
	server   *certs.Server    // how TLS of the client's side ends here; nil: it does not
	gate     *tlsbridge.Gate  // what limits half-open clients; nil: nothing does
	halfOpen bool             // the client is one, and in the gate
	heard    []byte           // what the client has said and nobody was told; pooled
	hello    bool             // that is a ClientHello: TLS passes through
	peeker   tlsbridge.Peeker // while state is greeting
	stage    stage            // the same
	asked    bool             // the client asked for TLS in PostgreSQL's way and was told yes
	refused  bool             // the client asked for GSSAPI in that way and was told no
	version  uint16           // of the client's TLS, once its handshake is done
	protocol string           // that the client has agreed on by ALPN, "" for none
	name     string           // that the client asks for by SNI; only where somebody wants it
	detail   string           // what TLS says of why it failed, for the access log

	proxy netip.AddrPort  // who has told that the client is another: session.address; invalid: nobody
	dest  netip.AddrPort  // where the client connected to, as it was told; invalid: nobody did
	id    string          // that goes through all proxies; "" for none
	tls   *proxyproto.TLS // what backends are told of the client's TLS; nil for nothing

	meter  *meter  // what holds it to the frontend's caps; set with metered
	waiter *waiter // from when it first waits for a place until it is open

	next *prelude // on the shard's free list
}

// nothing is the prelude of all other sessions. It is never written.
var nothing prelude

// own returns the session's prelude, which may be written.
func (s *session) own() *prelude {
	if s.prelude != &nothing {
		return s.prelude
	}
	sh := s.sh
	p := sh.preludes
	if p == nil {
		p = new(prelude)
	} else {
		sh.preludes, sh.preludesLen = p.next, sh.preludesLen-1
		p.next = nil
	}
	s.prelude = p
	return p
}

// disown takes the prelude back when the session has ended.
func (s *session) disown() {
	p, sh := s.prelude, s.sh
	s.prelude = &nothing
	if p == &nothing || sh.preludesLen >= keepFree {
		return
	}
	*p = prelude{next: sh.preludes}
	sh.preludes, sh.preludesLen = p, sh.preludesLen+1
}
