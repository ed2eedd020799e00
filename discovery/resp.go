package discovery

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// resp is a connection that speaks RESP2.
type resp struct {
	conn io.ReadWriter
	in   *bufio.Reader
	left int64 // bytes that may still be read
	most int64
}

const maxRESPLine = 4096 // bytes; errors are longer lines than numbers

func newRESP(conn io.ReadWriter, most int64) *resp {
	return &resp{conn: conn, in: bufio.NewReaderSize(conn, maxRESPLine), left: most, most: most}
}

// do sends a command and returns the strings of its answer: one, or those of an array. A null is no string.
func (c *resp) do(words ...string) ([]string, error) {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := c.conn.Write(b); err != nil {
		return nil, err
	}
	return c.reply()
}

func (c *resp) reply() ([]string, error) {
	sign, rest, err := c.line()
	if err != nil {
		return nil, err
	}
	switch sign {
	case '+', ':':
		return []string{rest}, nil
	case '-':
		return nil, fail(ReasonStatus, fmt.Errorf("the server says %s", respCode(rest)))
	case '$':
		s, ok, err := c.bulk(rest)
		if err != nil || !ok {
			return nil, err
		}
		return []string{s}, nil
	case '*':
		return c.array(rest)
	}
	return nil, fail(ReasonDecode, fmt.Errorf("got a reply that begins with %s; want RESP2", quote(string(sign))))
}

func (c *resp) array(count string) ([]string, error) {
	n, err := c.count(count)
	if err != nil || n < 0 {
		return nil, err
	}
	var all []string
	for range n {
		sign, rest, err := c.line()
		if err != nil {
			return nil, err
		}
		if sign != '$' {
			return nil, fail(ReasonDecode, fmt.Errorf("got %s in an array; want strings", quote(string(sign))))
		}
		s, ok, err := c.bulk(rest)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fail(ReasonDecode, errors.New("got null in an array"))
		}
		all = append(all, s)
	}
	return all, nil
}

// line reads a line and returns its first byte and what follows.
func (c *resp) line() (byte, string, error) {
	b, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return 0, "", fail(ReasonDecode, fmt.Errorf("got a line of more than %d bytes", maxRESPLine))
	case errors.Is(err, io.EOF):
		return 0, "", errCut
	case err != nil:
		return 0, "", err
	}
	if c.left -= int64(len(b)); c.left < 0 {
		return 0, "", tooLarge(c.most)
	}
	if len(b) < 3 || b[len(b)-2] != '\r' {
		return 0, "", fail(ReasonDecode, errors.New("got a line that does not end in CR LF, or is empty"))
	}
	return b[0], string(b[1 : len(b)-2]), nil
}

// bulk reads a string whose length is said; false = null.
func (c *resp) bulk(length string) (string, bool, error) {
	n, err := c.count(length)
	if err != nil || n < 0 {
		return "", false, err
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(c.in, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errCut
		}
		return "", false, err
	}
	c.left -= n + 2
	if b[n] != '\r' || b[n+1] != '\n' {
		return "", false, fail(ReasonDecode, errors.New("got a string that is longer than it says"))
	}
	return string(b[:n]), true, nil
}

// count reads a length, of bytes or of strings, of which each takes some; -1 = null.
func (c *resp) count(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || n < -1:
		return 0, fail(ReasonDecode, fmt.Errorf("got the length %s", quote(s)))
	case n > c.left:
		return 0, tooLarge(c.most)
	}
	return n, nil
}

// respCode is the first word of an error, such as WRONGPASS: the rest may repeat what was sent.
func respCode(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if word == "" || len(word) > 32 || strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "an error"
	}
	return word
}
