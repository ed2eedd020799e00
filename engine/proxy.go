package engine

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"

	"awe4lb/config"
	"awe4lb/engine/proxyproto"

	"golang.org/x/sys/unix"
)

// PROXY headers: who the client is, as the proxy before us tells, and as we tell the backend.

// trusts reports whether a header of the connection from a may be believed. A unix socket's mode says who comes there.
func trusts(p *config.ProxyProtocol, a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
}

// judgeProxy takes the header. It returns what follows it.
func (s *session) judgeProxy(data []byte) []byte {
	h := &s.sh.proxied
	n, status := proxyproto.Parse(data, h)
	switch {
	case status == proxyproto.NeedMore:
		return data
	case status == proxyproto.Found:
		s.introduce(h)
	case status == proxyproto.Malformed || s.front.ProxyProtocol.Accept == "required":
		s.own().detail = "PROXY header: " + status.String()
		s.end(BadProxy)
		return nil
	}
	return s.introduced(data[n:])
}

// introduce makes the client the one that a header tells of.
func (s *session) introduce(h *proxyproto.Header) {
	if h.Local || !h.Known || h.Datagram {
		return // the proxy speaks for itself, or cannot say
	}
	p := s.own()
	p.proxy, p.dest, s.address = s.address, h.Dest, h.Source
	for kind, value := range h.TLVs() {
		switch {
		case len(value) > 255:
		case kind == proxyproto.TLVALPN:
			p.protocol = string(value)
		case kind == proxyproto.TLVAuthority:
			p.name = string(value)
		case kind == proxyproto.TLVUniqueID && len(value) <= proxyproto.MaxID:
			p.id = string(value)
		}
	}
}

// introduced goes on when it is known who the client is. rest is what it has said.
func (s *session) introduced(rest []byte) []byte {
	if g := guardOf(s.f); g != nil {
		var reason Reason
		if s.held, reason = g.admit(s.address.Addr(), s.sh.eng, s.fstats); reason != none {
			s.end(reason)
			return nil
		}
	}
	if !speaksFirst(s.f) {
		s.routePlain(rest)
		return nil
	}
	s.welcome()
	if s.state != greeting || len(rest) == 0 {
		return rest
	}
	return s.judge(rest)
}

// announces reports whether the session's backend is told who the client is.
func (s *session) announces() bool {
	return s.pool.Config.SendProxy != "off" && s.pool.Config.SendProxy != ""
}

// tells reports whether the backends of s's pool are told of one of config.Pool.ProxyTLVs.
func (s *session) tells(tlv string) bool {
	return s.pool != nil && slices.Contains(s.pool.Config.ProxyTLVs, tlv)
}

// announce appends the header that the backend is told who the client is by.
func (s *session) announce(out []byte) []byte {
	c := proxyproto.Client{Source: s.address, Dest: s.dest}
	if !c.Dest.IsValid() && s.address.IsValid() {
		c.Dest = localOf(int(s.client.fd), &s.sh.target)
	}
	if s.pool.Config.SendProxy == "v1" {
		return proxyproto.Append1(out, &c)
	}
	if s.tells("alpn") {
		c.ALPN = s.protocol
	}
	if s.tells("authority") {
		c.Authority = s.name
	}
	if s.tells("unique_id") {
		if s.id == "" {
			s.own().id = newID()
		}
		c.UniqueID = []byte(s.id)
	}
	if s.tells("tls") {
		c.TLS = s.tls
	}
	c.CRC32C = s.tells("crc32c")
	return proxyproto.Append2(out, &c)
}

// newID returns what tells a session from every other.
func newID() string {
	return string(appendID(nil))
}

// appendID is newID without a string.
func appendID(out []byte) []byte {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	return hex.AppendEncode(out, b[:])
}

// describeTLS returns what backends are told of a handshake.
func describeTLS(state *tls.ConnectionState) *proxyproto.TLS {
	t := &proxyproto.TLS{Version: "TLSv1", Cipher: tls.CipherSuiteName(state.CipherSuite)}
	if state.Version > tls.VersionTLS10 {
		t.Version += "." + string(rune('0'+state.Version-tls.VersionTLS10))
	}
	if len(state.PeerCertificates) > 0 {
		t.CN, t.Verified = state.PeerCertificates[0].Subject.CommonName, len(state.VerifiedChains) > 0
	}
	return t
}

// localOf returns the address that a client connected to; invalid for a unix socket. sa is scratch.
func localOf(fd int, sa *sockaddr) netip.AddrPort {
	sa.size = unix.SizeofSockaddrAny
	if errno := sysGetsockname(fd, sa); errno != 0 {
		return netip.AddrPort{}
	}
	return sa.addrPort()
}
