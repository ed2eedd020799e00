package health

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"syscall"
)

// Kinds tcp, tls and udp: that somebody answers, and what.

// converse says what is to be said on a connection and hears the answer; without either, that it is open is enough.
func (c *check) converse(conn net.Conn) outcome {
	if len(c.h.SendBytes) > 0 {
		if _, err := conn.Write(c.h.SendBytes); err != nil {
			return c.failed("send", err)
		}
	}
	if !c.expectsAnswer() {
		return isGood("it accepts connections")
	}
	want := c.expectation()
	said := make([]byte, 0, min(int(c.h.ReadLimit), 4096))
	for {
		if done, o := want.judge(said, false); done {
			return o
		}
		if len(said) == int(c.h.ReadLimit) {
			_, o := want.judge(said, true)
			return o
		}
		if len(said) == cap(said) {
			said = append(said, 0)[:len(said)]
		}
		n, err := conn.Read(said[len(said):min(cap(said), int(c.h.ReadLimit))])
		said = said[:len(said)+n]
		if err == nil {
			continue
		}
		done, o := want.judge(said, true)
		if !done || o.verdict == good || len(said) > 0 && errors.Is(err, io.EOF) {
			return o
		}
		if len(said) > 0 {
			return isBad("%s after %s", c.explain(err), shown(said))
		}
		return c.failed("answer", err)
	}
}

// exchange is converse for datagrams: one is sent, and one is judged. Without an expectation silence is good: only an
// error says that nobody is there.
func (c *check) exchange(conn net.Conn) outcome {
	if _, err := conn.Write(c.h.SendBytes); err != nil {
		return c.failed("send", err)
	}
	b := make([]byte, c.h.ReadLimit)
	n, err := conn.Read(b)
	switch {
	case err == nil && !c.expectsAnswer():
		return isGood("it answers")
	case err == nil:
		_, o := c.expectation().judge(b[:n], true)
		return o
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.expectsAnswer():
		return isGood("nobody says that it is not there")
	case errors.Is(err, syscall.ECONNREFUSED):
		return isBad("answer: nobody listens there")
	}
	return c.failed("answer", err)
}

func (c *check) expectsAnswer() bool { return len(c.h.ExpectBytes) > 0 || c.h.ExpectRegexp != "" }

// expectation is what an answer has to be.
type expectation struct {
	prefix []byte
	expr   *regexp.Regexp // nil: none
}

func (c *check) expectation() expectation {
	e := expectation{prefix: c.h.ExpectBytes}
	if c.h.ExpectRegexp != "" {
		e.expr = regexp.MustCompile(c.h.ExpectRegexp) // config has compiled it
	}
	return e
}

// judge returns what is to be thought of what was said so far, and whether that is the last word; with all it is.
func (e expectation) judge(said []byte, all bool) (bool, outcome) {
	if e.expr != nil {
		if e.expr.Match(said) {
			return true, isGood("it answers as expected")
		}
		return all, isBad("answer: got %s; want what matches %s", shown(said), shown(e.expr.String()))
	}
	n := min(len(said), len(e.prefix))
	switch {
	case !bytes.Equal(said[:n], e.prefix[:n]):
		return true, isBad("answer: got %s; want %s", shown(said), shown(e.prefix))
	case n == len(e.prefix):
		return true, isGood("it answers as expected")
	}
	return all, isBad("answer: got only %s; want %s", shown(said), shown(e.prefix))
}
