package tlsbridge

import "encoding/binary"

// PostgresFirst is what a PostgreSQL client says first.
type PostgresFirst uint8

const (
	PostgresMore   PostgresFirst = iota // a proper beginning; the rest has yet to arrive
	PostgresSSL                         // SSLRequest: answer PostgresYes, then a ClientHello follows; or PostgresNo
	PostgresGSS                         // GSSENCRequest: answer PostgresNo, then one of the others follows
	PostgresTLS                         // a ClientHello at once (sslnegotiation=direct): go on with Peeker
	PostgresPlain                       // a StartupMessage: no encryption wanted
	PostgresCancel                      // a CancelRequest, which libpq before 17 never encrypts: it holds no secret but its own key
	PostgresTooFar                      // a request for encryption and more behind it: see PeekPostgres
	PostgresNot                         // not PostgreSQL
)

// PostgresYes and PostgresNo answer a request for encryption, each a whole message of one byte.
const (
	PostgresYes = 'S'
	PostgresNo  = 'N'
)

// PostgresSSLRequest asks a server for TLS. The server answers with one byte, PostgresYes or PostgresNo. Nothing else may
// be in hand when the ClientHello goes out: what a man in the middle put behind the answer would count as encrypted
// (CVE-2021-23222).
const PostgresSSLRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

const (
	postgresGSSCode    = 80877104
	postgresSSLCode    = 80877103
	postgresCancelCode = 80877102
	postgresMaxStartup = 10000 // bytes; the limit of PostgreSQL itself
	postgresRequest    = 8     // bytes of SSLRequest and GSSENCRequest
)

// PeekPostgres looks at b, everything a client has sent and was not answered yet, and says what it begins with. Messages
// are a length of 4 bytes, itself included, then a code or protocol version of 4 bytes.
//
// A client waits for the answer to SSLRequest or GSSENCRequest (both postgresRequest bytes long) before it goes on. If
// more bytes are there already, somebody may have put them in front of the encrypted stream to have them taken for a part
// of it (CVE-2021-23214): the answer is PostgresTooFar, and the connection is to be closed.
func PeekPostgres(b []byte) PostgresFirst {
	if len(b) == 0 {
		return PostgresMore
	}
	if b[0] == recordHandshake { // no length has such a first byte: it would be over 352 MB
		return PostgresTLS
	}
	if b[0] != 0 || len(b) > 1 && b[1] != 0 {
		return PostgresNot
	}
	if len(b) < postgresRequest {
		return PostgresMore
	}
	size, code := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case code == postgresSSLCode || code == postgresGSSCode:
		if size != postgresRequest {
			return PostgresNot
		}
		if len(b) > postgresRequest {
			return PostgresTooFar
		}
		if code == postgresGSSCode {
			return PostgresGSS
		}
		return PostgresSSL
	case code == postgresCancelCode && size >= 12 && size <= postgresMaxStartup:
		return PostgresCancel
	case code>>16 >= 1 && code>>16 <= 3 && size > postgresRequest && size <= postgresMaxStartup:
		return PostgresPlain
	}
	return PostgresNot
}
