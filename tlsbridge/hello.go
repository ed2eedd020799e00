package tlsbridge

import (
	"bytes"
	"iter"

	"golang.org/x/crypto/cryptobyte"
)

// Status is what the bytes received so far amount to.
type Status uint8

const (
	NeedMore  Status = iota // a proper beginning; the rest has yet to arrive
	Found                   // a whole ClientHello
	NotTLS                  // not the beginning of a TLS connection: plain HTTP, an SSLv2 hello, garbage
	Malformed               // a TLS connection whose ClientHello breaks the rules
	TooLong                 // a ClientHello that would take more bytes than the limit
)

var statusNames = [...]string{"need more", "found", "not TLS", "malformed", "too long"}

func (s Status) String() string { return statusNames[s] }

// HelloLimit is the default for the bytes a ClientHello may take on the wire, record headers included. Browsers send
// 0.5-2 kB; 64 KiB is the most that crypto/tls takes.
const HelloLimit = 16 << 10

const (
	recordHeader    = 5
	handshakeHeader = 4
	maxPlaintext    = 16 << 10
	recordHandshake = 22
	recordAlert     = 21
	typeClientHello = 1
)

// Peeker finds a ClientHello in what a client sends, however it is cut into segments and TLS records. The zero Peeker is
// ready for a connection; it keeps offsets only, the bytes stay with the caller.
type Peeker struct {
	next   int // offset of the header of the first record not yet whole
	have   int // bytes of the handshake message in the records before that
	header [handshakeHeader]byte
}

// Peek looks at b, everything the client has sent so far, and returns what that is. On Found it has filled h, which then
// refers to b. b grows from call to call and is never changed; limit is the most bytes it may come to. After anything but
// NeedMore the Peeker is spent.
//
// What can be refused is refused with the first byte that shows it: a wrong record type with the first byte, a wrong
// message with the sixth, a ClientHello over the limit as soon as its length is known. Never blocks; a prefix costs 10 ns
// and does not allocate (BenchmarkPeek); a ClientHello cut into records is joined in memory that h keeps.
func (p *Peeker) Peek(b []byte, limit int, h *Hello) Status {
	status := p.peek(b, limit, h)
	if status == NeedMore && len(b) >= limit { // the limit falls into the header of a record
		return TooLong
	}
	return status
}

func (p *Peeker) peek(b []byte, limit int, h *Hello) Status {
	for {
		rest := b[p.next:]
		if status := p.checkHeader(rest); status != Found {
			return status
		}
		n := int(rest[3])<<8 | int(rest[4])
		if n == 0 || n > maxPlaintext {
			return Malformed
		}
		// The message's own header, as far as it is here: it may be cut into records, too.
		seen := min(n, len(rest)-recordHeader)
		if p.have+seen == 0 {
			return NeedMore // of a record too long, the sixth byte still says whether it is a ClientHello at all
		}
		if p.have < handshakeHeader {
			copy(p.header[p.have:], rest[recordHeader:recordHeader+seen])
			if p.header[0] != typeClientHello {
				return NotTLS
			}
		}
		want := 0
		if p.have+seen >= handshakeHeader {
			want = handshakeHeader + int(p.header[1])<<16 + int(p.header[2])<<8 + int(p.header[3])
			if p.next-p.have+recordHeader+want > limit {
				return TooLong
			}
		}
		if p.next+recordHeader+n > limit {
			return TooLong
		}
		if seen < n {
			return NeedMore
		}
		p.next += recordHeader + n
		p.have += n
		if want > 0 && p.have >= want {
			if !h.parse(p.message(b, want, h)) {
				return Malformed
			}
			return Found
		}
	}
}

// checkHeader returns Found for a whole record header with the right type and version, and what else is the case.
func (p *Peeker) checkHeader(rest []byte) Status {
	wrong := NotTLS
	if p.next > 0 {
		wrong = Malformed
	}
	switch {
	case len(rest) > 0 && rest[0] != recordHandshake,
		len(rest) > 1 && rest[1] != 3,
		len(rest) > 2 && rest[2] > 4:
		return wrong
	case len(rest) < recordHeader:
		return NeedMore
	}
	return Found
}

// message returns the handshake message, want bytes long, whose records are b[:p.next].
func (p *Peeker) message(b []byte, want int, h *Hello) []byte {
	if p.next == recordHeader+p.have { // one record
		return b[recordHeader : recordHeader+want]
	}
	h.joined = h.joined[:0]
	for rest := b[:p.next]; len(rest) > 0; {
		n := recordHeader + int(rest[3])<<8 + int(rest[4])
		h.joined = append(h.joined, rest[recordHeader:n]...)
		rest = rest[n:]
	}
	return h.joined[:want]
}

// Hello is what routing wants to know of a ClientHello. It can be used again for other connections. The slices it hands
// out are valid until then, and as long as the bytes it was read from do not change.
type Hello struct {
	name     [maxName]byte
	nameLen  int
	alpn     []byte // the list as it came, each name after its length
	joined   []byte // a ClientHello of several records
	versions []byte
	legacy   uint16
	ipName   bool
	ech      bool
	extended [3]bool // server_name, ALPN, supported_versions were there
}

const maxName = 253 // bytes of a DNS name

// ServerName returns the name the client asks for, in lower case, or nothing: there was none, or it was an IP address,
// which RFC 6066 forbids and which routes and certificates therefore treat like none.
//
// When ECH is true it is only the outer name: where to send the connection, not whom the client wants to reach.
func (h *Hello) ServerName() []byte {
	if h.ipName {
		return nil
	}
	return h.name[:h.nameLen]
}

// IPName reports whether the client put an IP address where a name belongs.
func (h *Hello) IPName() bool { return h.ipName }

// ECH reports whether the ClientHello has an encrypted_client_hello extension: an encrypted inner ClientHello, or random
// bytes in its place (GREASE). Nobody without the key can tell which.
func (h *Hello) ECH() bool { return h.ech }

// ALPN returns the application protocols the client offers, in its order, without GREASE.
func (h *Hello) ALPN() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := h.alpn; len(rest) > 0; {
			name := rest[1 : 1+rest[0]]
			rest = rest[1+len(name):]
			if len(name) == 2 && isGREASE(uint16(name[0])<<8|uint16(name[1])) {
				continue
			}
			if !yield(name) {
				return
			}
		}
	}
}

// Offers reports whether the client offers the application protocol.
func (h *Hello) Offers(protocol string) bool {
	for name := range h.ALPN() {
		if string(name) == protocol {
			return true
		}
	}
	return false
}

// MaxVersion returns the highest version from SSL 3.0 (0x0300) to TLS 1.3 (0x0304) that the client offers, 0 for none of
// them.
func (h *Hello) MaxVersion() uint16 {
	if h.versions == nil {
		return min(h.legacy, 0x0303) // RFC 8446, section 4.2.1: TLS 1.3 only by the extension
	}
	highest := uint16(0)
	for v := h.versions; len(v) > 1; v = v[2:] {
		if version := uint16(v[0])<<8 | uint16(v[1]); version>>8 == 3 && version <= 0x0304 {
			highest = max(highest, version)
		}
	}
	return highest
}

// isGREASE reports whether v is one of the values of RFC 8701 that mean nothing: 0x0a0a, 0x1a1a, … 0xfafa.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
	extECH               = 0xfe0d
)

// parse reads a handshake message. It refuses what crypto/tls refuses in the parts that it reads, and names that are not
// fit to be logged or matched; FuzzPeek holds the two against each other.
func (h *Hello) parse(message []byte) bool {
	h.nameLen, h.alpn, h.versions, h.ipName, h.ech, h.extended = 0, nil, nil, false, false, [3]bool{}
	s := cryptobyte.String(message)
	var session, compression, suites, extensions cryptobyte.String
	if !s.Skip(handshakeHeader) || !s.ReadUint16(&h.legacy) || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&session) ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites)%2 != 0 || !s.ReadUint8LengthPrefixed(&compression) {
		return false
	}
	if s.Empty() {
		return true // extensions are optional
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return false
	}
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return false
		}
		ok := true
		switch kind {
		case extServerName:
			ok = h.once(0) && h.parseNames(data)
		case extALPN:
			ok = h.once(1) && h.parseALPN(data)
		case extSupportedVersions:
			ok = h.once(2) && h.parseVersions(data)
		case extECH:
			h.ech = true
		}
		if !ok {
			return false
		}
	}
	return true
}

// once reports whether extension i is there for the first time.
func (h *Hello) once(i int) bool {
	again := h.extended[i]
	h.extended[i] = true
	return !again
}

func (h *Hello) parseNames(data cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return false
		}
		if kind != 0 {
			continue // only host_name is defined
		}
		if h.nameLen > 0 || !h.setName(name) {
			return false
		}
	}
	return true
}

// setName takes a name that is printable ASCII without empty labels: no trailing dot, nothing that could forge a line of
// a log.
func (h *Hello) setName(name []byte) bool {
	if len(name) > maxName {
		return false
	}
	previous := byte('.')
	for i, c := range name {
		if c <= ' ' || c >= 0x7f || c == '.' && previous == '.' {
			return false
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h.name[i] = c
		previous = c
	}
	h.nameLen, h.ipName = len(name), looksLikeIP(name)
	return previous != '.'
}

// looksLikeIP reports whether a name is an IP address in any spelling: no top-level domain is all digits, and no name
// has a colon.
func looksLikeIP(name []byte) bool {
	for _, c := range name[bytes.LastIndexByte(name, '.')+1:] {
		if c < '0' || c > '9' {
			return bytes.IndexByte(name, ':') >= 0
		}
	}
	return true
}

func (h *Hello) parseALPN(data cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	h.alpn = list
	for !list.Empty() {
		var name cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&name) || name.Empty() {
			return false
		}
	}
	return true
}

func (h *Hello) parseVersions(data cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint8LengthPrefixed(&list) || list.Empty() || len(list)%2 != 0 || !data.Empty() {
		return false
	}
	h.versions = list
	return true
}
