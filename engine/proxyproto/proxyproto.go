// Package proxyproto reads and writes the header by which a proxy tells the next one who the client is: HAProxy's PROXY
// protocol, versions 1 (a line of text) and 2 (binary), https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt.
//
// It works on bytes and knows no sockets. Writing allocates nothing, nor does reading version 2; version 1 costs two strings.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"iter"
	"net/netip"
	"strconv"
)

// Status is what the bytes received so far amount to.
type Status uint8

const (
	NeedMore  Status = iota // a proper beginning; the rest has yet to arrive
	Found                   // a whole header
	NotPROXY                // not the beginning of a header
	Malformed               // a header that breaks the rules, or fails its checksum
)

var statusNames = [...]string{"need more", "found", "not a PROXY header", "malformed"}

func (s Status) String() string { return statusNames[s] }

// Header is what a header says.
type Header struct {
	Version  int            // 1 or 2
	Local    bool           // the proxy speaks for itself (a health check): the addresses of the connection hold
	Known    bool           // Source and Dest are there; otherwise the client's family has no equal here (UNKNOWN, UNSPEC, unix)
	Datagram bool           // version 2: the client speaks UDP
	Source   netip.AddrPort // the client
	Dest     netip.AddrPort // where the client connected to

	tlvs []byte
}

// The kinds of TLV that are of use here.
const (
	TLVALPN      = 0x01
	TLVAuthority = 0x02 // the name in the ClientHello
	TLVCRC32C    = 0x03
	TLVNoop      = 0x04
	TLVUniqueID  = 0x05
	TLVSSL       = 0x20

	sslVersion = 0x21 // within TLVSSL
	sslCN      = 0x22
	sslCipher  = 0x23

	clientSSL      = 0x01 // bits of TLVSSL's first byte
	clientCertConn = 0x02
	clientCertSess = 0x04
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	maxLine    = 107 // bytes of a header of version 1, CRLF included
	head2      = 16  // bytes of a header of version 2 before the addresses

	// MaxSize is the most bytes of a header that are taken: version 2 could say more in its TLVs than anybody does.
	MaxSize = head2 + 4096

	// MaxID is the most bytes of a unique id.
	MaxID = 128

	// MaxDatagramSize is the most bytes that Append2 adds for a client without TLS: IPv6 addresses, a unique id, a checksum.
	MaxDatagramSize = head2 + 36 + 3 + MaxID + 3 + 4
)

// Parse looks at b, everything received so far, and returns what it is. On Found it fills h, which then refers to b, and
// returns the number of bytes that the header takes. It refuses with the first byte that shows why.
func Parse(b []byte, h *Header) (n int, status Status) {
	switch {
	case len(b) == 0:
		return 0, NeedMore
	case b[0] == signature1[0]:
		return parse1(b, h)
	case b[0] == signature2[0]:
		return parse2(b, h)
	}
	return 0, NotPROXY
}

// ParseDatagram is Parse for the beginning of a datagram, which has the whole header or none of it. That is of version 2: the
// other knows no datagrams, and whatever looks like it is payload.
func ParseDatagram(b []byte, h *Header) (n int, status Status) {
	if len(b) < len(signature2) || string(b[:len(signature2)]) != signature2 {
		return 0, NotPROXY
	}
	if n, status = parse2(b, h); status == NeedMore {
		return 0, Malformed
	}
	return n, status
}

// parse1 reads a line such as "PROXY TCP4 192.0.2.1 192.0.2.2 51000 443\r\n".
func parse1(b []byte, h *Header) (int, Status) {
	if n := min(len(b), len(signature1)); string(b[:n]) != signature1[:n] {
		return 0, NotPROXY
	}
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	if end < 0 {
		if len(b) >= maxLine {
			return 0, Malformed
		}
		return 0, NeedMore
	}
	if end < len(signature1) || b[end-1] != '\r' {
		return 0, Malformed
	}
	*h = Header{Version: 1}
	line := b[len(signature1) : end-1]
	family, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(family) {
	case "UNKNOWN": // whatever follows is to be ignored
		return end + 1, Found
	case "TCP4", "TCP6":
	default:
		return 0, Malformed
	}
	var fields [4][]byte
	for i := range fields {
		var more bool
		if fields[i], rest, more = bytes.Cut(rest, []byte(" ")); more != (i < 3) {
			return 0, Malformed
		}
	}
	source, ok1 := parseAddr(fields[0], family[3] == '4')
	dest, ok2 := parseAddr(fields[1], family[3] == '4')
	sourcePort, ok3 := parsePort(fields[2])
	destPort, ok4 := parsePort(fields[3])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return 0, Malformed
	}
	h.Known = true
	h.Source, h.Dest = netip.AddrPortFrom(source, sourcePort), netip.AddrPortFrom(dest, destPort)
	return end + 1, Found
}

func parseAddr(b []byte, v4 bool) (netip.Addr, bool) {
	if len(b) > 39 { // the longest there is
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(b))
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func parsePort(b []byte) (uint16, bool) {
	if len(b) == 0 || len(b) > 5 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return uint16(n), n <= 65535
}

func parse2(b []byte, h *Header) (int, Status) {
	if n := min(len(b), len(signature2)); string(b[:n]) != signature2[:n] {
		return 0, NotPROXY
	}
	if len(b) > 12 && b[12]>>4 != 2 || len(b) > 12 && b[12]&0xf > 1 {
		return 0, Malformed
	}
	if len(b) < head2 {
		return 0, NeedMore
	}
	n := head2 + int(binary.BigEndian.Uint16(b[14:]))
	if n > MaxSize {
		return 0, Malformed
	}
	family, transport := b[13]>>4, b[13]&0xf
	if family > 3 || transport > 2 {
		return 0, Malformed
	}
	if len(b) < n {
		return 0, NeedMore
	}
	*h = Header{Version: 2, Local: b[12]&0xf == 0, Datagram: transport == 2}
	body := b[head2:n]
	size := [...]int{0, 12, 36, 216}[family] // of the addresses
	if len(body) < size {
		return 0, Malformed
	}
	addresses, tlvs := body[:size], body[size:]
	if !wellFormed(tlvs) || !checksumHolds(b[:n], tlvs) {
		return 0, Malformed
	}
	h.tlvs = tlvs
	if h.Local || transport == 0 {
		return n, Found
	}
	switch family {
	case 1:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(addresses)), binary.BigEndian.Uint16(addresses[8:]))
		h.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte(addresses[4:])), binary.BigEndian.Uint16(addresses[10:]))
		h.Known = true
	case 2:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(addresses)).Unmap(), binary.BigEndian.Uint16(addresses[32:]))
		h.Dest = netip.AddrPortFrom(netip.AddrFrom16([16]byte(addresses[16:])).Unmap(), binary.BigEndian.Uint16(addresses[34:]))
		h.Known = true
	}
	return n, Found
}

// TLVs returns what else the header says, in its order: kinds and values, which refer to what was parsed.
func (h *Header) TLVs() iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for rest := h.tlvs; len(rest) >= 3; {
			n := 3 + int(binary.BigEndian.Uint16(rest[1:]))
			if !yield(rest[0], rest[3:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// TLV returns the first value of a kind, nil if there is none.
func (h *Header) TLV(kind byte) []byte {
	for k, value := range h.TLVs() {
		if k == kind {
			return value
		}
	}
	return nil
}

// wellFormed reports whether b is a row of TLVs, each of them whole.
func wellFormed(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 3 || len(b) < 3+int(binary.BigEndian.Uint16(b[1:])) {
			return false
		}
		b = b[3+int(binary.BigEndian.Uint16(b[1:])):]
	}
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumHolds reports whether a checksum in the TLVs, if there is one, is that of the header. tlvs is the end of header.
func checksumHolds(header, tlvs []byte) bool {
	for at := len(header) - len(tlvs); at < len(header); at += 3 + int(binary.BigEndian.Uint16(header[at+1:])) {
		if header[at] != TLVCRC32C {
			continue
		}
		if binary.BigEndian.Uint16(header[at+1:]) != 4 {
			return false
		}
		value := header[at+3 : at+7]
		sum := crc32.Update(0, castagnoli, header[:at+3])
		sum = crc32.Update(sum, castagnoli, zeroes[:])
		sum = crc32.Update(sum, castagnoli, header[at+7:])
		return sum == binary.BigEndian.Uint32(value)
	}
	return true
}

var zeroes [4]byte // what the checksum counts in its own place

// Client is what Append tells of a client.
type Client struct {
	Source, Dest netip.AddrPort // invalid: it came by a unix socket, and is told of as unknown
	Datagram     bool           // it speaks UDP

	// The TLVs of version 2; empty ones are left out.
	ALPN      string
	Authority string
	UniqueID  []byte
	TLS       *TLS
	CRC32C    bool
}

// TLS is what Append tells of a client whose TLS ended here.
type TLS struct {
	Version  string // such as TLSv1.3
	Cipher   string
	CN       string // of the client's certificate; "" for none
	Verified bool   // it has shown a certificate, and that was verified
}

// Append1 appends a header of version 1. A client of UDP has none: it is told of as unknown.
func Append1(out []byte, c *Client) []byte {
	if !c.Source.IsValid() || !c.Dest.IsValid() || c.Datagram {
		return append(out, "PROXY UNKNOWN\r\n"...)
	}
	source, dest := sameFamily(c.Source.Addr(), c.Dest.Addr())
	if source.Is4() {
		out = append(out, "PROXY TCP4 "...)
	} else {
		out = append(out, "PROXY TCP6 "...)
	}
	out = append(source.AppendTo(out), ' ')
	out = append(dest.AppendTo(out), ' ')
	out = append(strconv.AppendUint(out, uint64(c.Source.Port()), 10), ' ')
	return append(strconv.AppendUint(out, uint64(c.Dest.Port()), 10), '\r', '\n')
}

// Append2 appends a header of version 2.
func Append2(out []byte, c *Client) []byte {
	begin := len(out)
	out = append(out, signature2...)
	transport := byte(1)
	if c.Datagram {
		transport = 2
	}
	if !c.Source.IsValid() || !c.Dest.IsValid() {
		out = append(out, 0x21, 0, 0, 0)
	} else if source, dest := sameFamily(c.Source.Addr(), c.Dest.Addr()); source.Is4() {
		out = append(out, 0x21, 0x10|transport, 0, 0)
		a, b := source.As4(), dest.As4()
		out = append(append(out, a[:]...), b[:]...)
		out = appendPorts(out, c)
	} else {
		out = append(out, 0x21, 0x20|transport, 0, 0)
		a, b := source.As16(), dest.As16()
		out = append(append(out, a[:]...), b[:]...)
		out = appendPorts(out, c)
	}
	if c.ALPN != "" {
		out = appendTLV(out, TLVALPN, c.ALPN)
	}
	if c.Authority != "" {
		out = appendTLV(out, TLVAuthority, c.Authority)
	}
	if len(c.UniqueID) > 0 {
		out = appendTLV(out, TLVUniqueID, c.UniqueID[:min(len(c.UniqueID), MaxID)])
	}
	if c.TLS != nil {
		out = appendSSL(out, c.TLS)
	}
	crc := 0
	if c.CRC32C {
		out = append(out, TLVCRC32C, 0, 4, 0, 0, 0, 0)
		crc = len(out) - 4
	}
	binary.BigEndian.PutUint16(out[begin+14:], uint16(len(out)-begin-head2))
	if c.CRC32C {
		binary.BigEndian.PutUint32(out[crc:], crc32.Checksum(out[begin:], castagnoli))
	}
	return out
}

// sameFamily returns a and b as addresses of one family: IPv4 mapped into IPv6 where they differ.
func sameFamily(a, b netip.Addr) (netip.Addr, netip.Addr) {
	a, b = a.Unmap().WithZone(""), b.Unmap().WithZone("")
	if a.Is4() != b.Is4() {
		a, b = netip.AddrFrom16(a.As16()), netip.AddrFrom16(b.As16())
	}
	return a, b
}

func appendPorts(out []byte, c *Client) []byte {
	out = binary.BigEndian.AppendUint16(out, c.Source.Port())
	return binary.BigEndian.AppendUint16(out, c.Dest.Port())
}

const maxValue = 1024 // bytes of a TLV; longer ones are cut

func appendTLV[T string | []byte](out []byte, kind byte, value T) []byte {
	value = value[:min(len(value), maxValue)]
	out = append(out, kind)
	out = binary.BigEndian.AppendUint16(out, uint16(len(value)))
	return append(out, value...)
}

func appendSSL(out []byte, t *TLS) []byte {
	out = append(out, TLVSSL, 0, 0)
	at := len(out)
	client, verify := byte(clientSSL), uint32(1)
	if t.Verified {
		client |= clientCertConn | clientCertSess
		verify = 0
	}
	out = append(out, client)
	out = binary.BigEndian.AppendUint32(out, verify)
	out = appendTLV(out, sslVersion, t.Version)
	if t.Cipher != "" {
		out = appendTLV(out, sslCipher, t.Cipher)
	}
	if t.CN != "" {
		out = appendTLV(out, sslCN, t.CN)
	}
	binary.BigEndian.PutUint16(out[at-2:], uint16(len(out)-at))
	return out
}
