package health

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"awe4lb/config"
)

// replay is a connection to somebody who says only this, whatever he is told.
type replay struct{ *bytes.Reader }

func (replay) Write(b []byte) (int, error)      { return len(b), nil }
func (replay) Close() error                     { return nil }
func (replay) LocalAddr() net.Addr              { return nil }
func (replay) RemoteAddr() net.Addr             { return nil }
func (replay) SetDeadline(time.Time) error      { return nil }
func (replay) SetReadDeadline(time.Time) error  { return nil }
func (replay) SetWriteDeadline(time.Time) error { return nil }

// wellFormed checks what holds for every outcome.
func wellFormed(t *testing.T, o outcome) {
	t.Helper()
	for _, s := range []string{o.why, o.note} {
		if len(s) > 1000 || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("not one clean line: %q", s)
		}
	}
	if o.verdict != good && o.why == "" {
		t.Error("it does not say why")
	}
}

func FuzzAgent(f *testing.F) {
	for _, s := range []string{"up\n", "75%,ready # x", "maint", "\x00\xff", "0% up", strings.Repeat("a", 2000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &check{h: &config.Health{Timeout: time.Second}}
		o := c.askAgent(replay{bytes.NewReader(said)})
		wellFormed(t, o)
		if o.weight < -1 || o.weight > 25600 {
			t.Errorf("weight %d", o.weight)
		}
	})
}

func FuzzPostgres(f *testing.F) {
	f.Add([]byte(pgAuth(0, "")+pgMessage('Z', "I")+pgMessage('D', "\x00\x01\x00\x00\x00\x01f")+pgMessage('Z', "I")), true)
	f.Add([]byte(pgAuth(10, "SCRAM-SHA-256\x00\x00")+pgAuth(11, "r=a,s=AA==,i=1")), true)
	f.Add([]byte(pgError("57P03", "starting up")), false)
	f.Add([]byte(pgAuth(5, "salt")), true)
	f.Fuzz(func(t *testing.T, said []byte, user bool) {
		c := &check{h: &config.Health{Timeout: time.Second}}
		if user {
			c.h.User, c.h.Password, c.h.Query, c.h.ExpectBytes = "u", "p", "SELECT 1", []byte("f")
		}
		wellFormed(t, c.askPostgres(replay{bytes.NewReader(said)}))
	})
}

func FuzzMySQL(f *testing.F) {
	f.Add([]byte("\x08\x00\x00\x00\x0a8.4\x00abc\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"))
	f.Add([]byte("\x05\x00\x00\x00\xff\x10\x04ab"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &check{h: &config.Health{Timeout: time.Second}}
		wellFormed(t, c.askMySQL(replay{bytes.NewReader(said)}))
	})
}

func FuzzRedis(f *testing.F) {
	f.Add([]byte("+OK\r\n+PONG\r\n"))
	f.Add([]byte("-NOAUTH\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &check{h: &config.Health{Timeout: time.Second, Password: "x"}}
		wellFormed(t, c.askRedis(replay{bytes.NewReader(said)}))
	})
}

func FuzzGRPC(f *testing.F) {
	f.Add(serving(1), "0", "")
	f.Add([]byte{0, 0, 0, 0, 4, 0x12, 1, 'x', 8}, "", "m")
	f.Add([]byte{0, 0, 0, 0, 12, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "14", "\x00")
	f.Fuzz(func(t *testing.T, body []byte, status, message string) {
		wellFormed(t, judgeGRPC(body, status, message))
	})
}

func FuzzConverse(f *testing.F) {
	f.Add([]byte("220 ready\r\n"), []byte("220"), 3)
	f.Add([]byte("x"), []byte{}, 1)
	f.Fuzz(func(t *testing.T, said, expect []byte, limit int) {
		if limit < 1 || limit > 1<<20 || len(expect) > limit {
			return
		}
		c := &check{h: &config.Health{Timeout: time.Second, ExpectBytes: expect, ReadLimit: config.Size(limit)}}
		if len(expect) == 0 {
			c.h.ExpectRegexp = "ready"
		}
		o := c.converse(replay{bytes.NewReader(said)})
		wellFormed(t, o)
		if len(expect) > 0 && (o.verdict == good) != bytes.HasPrefix(said, expect) {
			t.Errorf("%q, %q: %v", said, expect, o.verdict)
		}
	})
}
