package health

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// Kind mysql: the server's greeting, and the answer to a login without a password. A client that leaves after the greeting
// would be counted as an error by the server, and its host blocked in the end (max_connect_errors).
//
//	packet:  length, 3 bytes | number | payload
//	greeting:  10 | version, zero | …     error:  0xff | code, 2 bytes | # and five characters of state | text
const (
	mysqlProtocol   = 10
	mysqlError      = 0xff
	mysqlSwitch     = 0xfe // to another way to log in
	mysqlQuit       = 1
	mysqlNoAccess   = 1045 // and others of the login
	mysqlWantsTLS   = 3159
	maxMySQLPacket  = 64 << 10
	mysqlSecure     = 1 << 15 // CLIENT_SECURE_CONNECTION
	mysqlPlugins    = 1 << 19 // CLIENT_PLUGIN_AUTH
	mysqlProtocol41 = 1 << 9  // CLIENT_PROTOCOL_41
	mysqlUTF8       = 33      // utf8_general_ci
)

func (c *check) askMySQL(conn net.Conn) outcome {
	greeting, number, err := readMySQL(conn)
	if err != nil {
		return c.failed("greeting", err)
	}
	version, o := judgeMySQLGreeting(greeting)
	if o != nil {
		return *o
	}
	user := c.h.User
	if user == "" {
		user = "awe4lb"
	}
	if _, err := conn.Write(mysqlPacket(number+1, mysqlLogin(user))); err != nil {
		return c.failed("send", err)
	}
	answer, number, err := readMySQL(conn)
	if err == nil && len(answer) > 0 && answer[0] == mysqlSwitch { // to whatever way, we have no password
		if _, err = conn.Write(mysqlPacket(number+1, nil)); err == nil {
			answer, _, err = readMySQL(conn)
		}
	}
	if err != nil {
		return c.failed("login", err)
	}
	defer func() { _, _ = conn.Write(mysqlPacket(0, []byte{mysqlQuit})) }()
	return judgeMySQLLogin(answer, version, c.h.User != "")
}

// judgeMySQLLogin judges the answer to a login. Without a user of its own the check expects to be turned away: the server
// is well enough to do so.
func judgeMySQLLogin(answer []byte, version string, mustSucceed bool) outcome {
	o := isGood("version " + version)
	o.note = version
	if len(answer) == 0 {
		return isBad("login: an empty answer")
	}
	if answer[0] != mysqlError {
		return o
	}
	code, text := parseMySQLError(answer)
	if denied := code == mysqlNoAccess || code == mysqlWantsTLS || code == 1044 || code == 1251 || code == 1698 || code == 3118 || code == 1524; denied && !mustSucceed {
		return o
	}
	if code == mysqlWantsTLS {
		return isBad("login: the server wants TLS, which this check does not speak; without user any answer is good")
	}
	return isBad("login: error %d, %s", code, shown(text))
}

// judgeMySQLGreeting returns the version in a greeting, or what is wrong.
func judgeMySQLGreeting(b []byte) (version string, o *outcome) {
	fail := func(format string, args ...any) (string, *outcome) {
		o := isBad(format, args...)
		return "", &o
	}
	switch {
	case len(b) == 0:
		return fail("greeting: it is empty")
	case b[0] == mysqlError:
		code, text := parseMySQLError(b)
		return fail("greeting: error %d, %s", code, shown(text))
	case b[0] != mysqlProtocol:
		return fail("greeting: got protocol %d; want %d", b[0], mysqlProtocol)
	}
	for i, c := range b[1:] {
		if c == 0 {
			return cut(string(b[1:1+i]), maxShown), nil
		}
	}
	return fail("greeting: it ended in the middle")
}

func parseMySQLError(b []byte) (code int, text string) {
	if len(b) < 3 {
		return 0, ""
	}
	code, b = int(binary.LittleEndian.Uint16(b[1:])), b[3:]
	if len(b) >= 6 && b[0] == '#' {
		b = b[6:]
	}
	return code, string(b)
}

var errMySQL = errors.New("not a packet of MySQL")

// readMySQL reads one packet.
func readMySQL(r io.Reader) (payload []byte, number byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	length := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if length > maxMySQLPacket {
		return nil, 0, errMySQL
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, 0, err
	}
	return payload, head[3], nil
}

func mysqlPacket(number byte, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), number}, payload...)
}

// mysqlLogin is a HandshakeResponse41 with an empty password.
func mysqlLogin(user string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, mysqlSecure|mysqlPlugins|mysqlProtocol41)
	b = binary.LittleEndian.AppendUint32(b, maxMySQLPacket)
	b = append(b, mysqlUTF8)
	b = append(b, make([]byte, 23)...)
	b = append(append(b, user...), 0)
	b = append(b, 0) // length of the answer to the server's challenge
	return append(append(b, "mysql_native_password"...), 0)
}
