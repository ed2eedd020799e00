package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Kind postgres, by the wire protocol 3.0. Without a user it is enough that the server begins to answer a login, or turns it
// away for a reason that a healthy one has. With one, the login has to succeed, and the query after it.
//
//	message:  kind | length, 4 bytes, its own included | payload; the first one has no kind
const (
	pgProtocol   = 3 << 16
	pgSSLRequest = 80877103
	maxPGMessage = 64 << 10
	maxPGCount   = 1000 // messages read in one probe
)

var errPG = errors.New("not a message of PostgreSQL")

// askPostgresTLS is what comes before TLS.
func askPostgresTLS(conn net.Conn) error {
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), pgSSLRequest)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var answer [1]byte // and no more, so that nothing that is not encrypted is taken for the answer to what is
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return errors.New("the server has none")
	}
	return errPG
}

// postgres is one conversation.
type postgres struct {
	c     *check
	conn  net.Conn
	scram *scram // nil: not begun
	count int
}

func (c *check) askPostgres(conn net.Conn) outcome {
	user, database := c.h.User, c.h.Database
	if user == "" {
		user = "awe4lb"
	}
	if database == "" {
		database = user
		if c.h.User == "" {
			database = "postgres"
		}
	}
	startup := binary.BigEndian.AppendUint32(nil, pgProtocol)
	for _, s := range []string{"user", user, "database", database, "application_name", "awe4lb-health", ""} {
		startup = append(append(startup, s...), 0)
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4)), startup...)); err != nil {
		return c.failed("send", err)
	}
	pg := &postgres{c: c, conn: conn}
	o := pg.login()
	if o.verdict == good && c.h.User != "" && c.h.Query != "" {
		o = pg.query()
	}
	_ = pg.send('X', nil) // else the server's log tells of a connection that was lost
	return o
}

// login goes on until the server is ready, or as far as is needed.
func (pg *postgres) login() outcome {
	for {
		kind, b, err := pg.read()
		if err != nil {
			return pg.c.failed("login", err)
		}
		switch kind {
		case 'E':
			return judgePGError(b, pg.c.h.User != "")
		case 'R':
			if pg.c.h.User == "" {
				return isGood("it asks to log in")
			}
			if o := pg.authenticate(b); o != nil {
				return *o
			}
		case 'Z':
			return isGood("logged in")
		case 'S', 'K', 'N', 'v': // settings, the key to cancel, notices
		default:
			return isBad("login: %v", errPG)
		}
	}
}

// judgePGError judges why a login was turned away. A server that starts, stops or has no connection left is not healthy; one
// that does not know us is.
func judgePGError(b []byte, mustSucceed bool) outcome {
	fields := pgFields(b)
	code, text := fields['C'], fields['M']
	refused := strings.HasPrefix(code, "28") || code == "3D000" || code == "42501" // who we are, which database, what we may
	if refused && !mustSucceed {
		return isGood("it answers")
	}
	if code == "" {
		return isBad("login: %v", errPG)
	}
	return isBad("login: %s (%s)", shown(text), cut(code, 5))
}

// pgFields splits an error into its fields.
func pgFields(b []byte) map[byte]string {
	fields := map[byte]string{}
	for len(b) > 1 && b[0] != 0 {
		value, rest, ok := strings.Cut(string(b[1:]), "\x00")
		if !ok {
			break
		}
		fields[b[0]] = value
		b = []byte(rest)
	}
	return fields
}

// authenticate answers one step of a login; nil when it goes on.
func (pg *postgres) authenticate(b []byte) *outcome {
	fail := func(format string, args ...any) *outcome {
		o := isBad("login: "+format, args...)
		return &o
	}
	if len(b) < 4 {
		return fail("%v", errPG)
	}
	var answer []byte
	password := pg.c.h.Password
	step, b := binary.BigEndian.Uint32(b), b[4:]
	if step != 0 && password == "" {
		return fail("it wants a password")
	}
	switch step {
	case 0: // done
		if pg.scram != nil && !pg.scram.verified {
			return fail("the server did not prove that it knows the password")
		}
		return nil
	case 3:
		answer = append([]byte(password), 0)
	case 5:
		if len(b) < 4 {
			return fail("%v", errPG)
		}
		answer = append([]byte(pgMD5(pg.c.h.User, password, b[:4])), 0)
	case 10:
		if !strings.Contains(string(b), scramName+"\x00") {
			return fail("it wants a way to log in that is not supported")
		}
		pg.scram = newSCRAM(password)
		initial := pg.scram.first()
		answer = append([]byte(scramName), 0)
		answer = append(binary.BigEndian.AppendUint32(answer, uint32(len(initial))), initial...)
	case 11, 12:
		if pg.scram == nil {
			return fail("%v", errPG)
		}
		if step == 12 {
			if err := pg.scram.verify(string(b)); err != nil {
				return fail("%v", err)
			}
			return nil
		}
		final, err := pg.scram.final(string(b))
		if err != nil {
			return fail("%v", err)
		}
		answer = []byte(final)
	default:
		return fail("it wants a way to log in that is not supported (%d)", step)
	}
	if err := pg.send('p', answer); err != nil {
		o := pg.c.failed("login", err)
		return &o
	}
	return nil
}

// query asks, and compares the first value of the first row.
func (pg *postgres) query() outcome {
	if err := pg.send('Q', append([]byte(pg.c.h.Query), 0)); err != nil {
		return pg.c.failed("query", err)
	}
	value, rows := "", 0
	for {
		kind, b, err := pg.read()
		if err != nil {
			return pg.c.failed("query", err)
		}
		switch kind {
		case 'E':
			fields := pgFields(b)
			return isBad("query: %s (%s)", shown(fields['M']), cut(fields['C'], 5))
		case 'D':
			if rows == 0 {
				if value, err = pgValue(b); err != nil {
					return isBad("query: %v", err)
				}
			}
			rows++
		case 'G', 'H', 'W':
			return isBad("query: it is a COPY; want a SELECT")
		case 'Z':
			want := string(pg.c.h.ExpectBytes)
			switch {
			case want == "":
				return isGood(fmt.Sprintf("query: %d rows", rows))
			case rows == 0:
				return isBad("query: got no row; want %s", shown(want))
			case value != want:
				return isBad("query: got %s; want %s", shown(value), shown(want))
			}
			return isGood("query: " + shown(value))
		}
	}
}

// pgValue returns the first value of a row; NULL is "".
func pgValue(b []byte) (string, error) {
	if len(b) < 6 || binary.BigEndian.Uint16(b) == 0 {
		return "", errPG
	}
	length := int32(binary.BigEndian.Uint32(b[2:]))
	switch {
	case length == -1:
		return "", nil
	case length < 0 || int(length) > len(b)-6:
		return "", errPG
	}
	return string(b[6 : 6+length]), nil
}

func (pg *postgres) send(kind byte, payload []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)+4))
	_, err := pg.conn.Write(append(b, payload...))
	return err
}

// read reads one message.
func (pg *postgres) read() (kind byte, payload []byte, err error) {
	if pg.count++; pg.count > maxPGCount {
		return 0, nil, errors.New("too many messages")
	}
	var head [5]byte
	if _, err := io.ReadFull(pg.conn, head[:]); err != nil {
		return 0, nil, err
	}
	length := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if length < 0 || length > maxPGMessage {
		return 0, nil, errPG
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(pg.conn, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return head[0], payload, nil
}
