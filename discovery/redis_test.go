package discovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestRedis is what Redis 7.0 says to the commands that are sent; internal/real has the server itself.
func TestRedis(t *testing.T) {
	lbtest.CheckLeaks(t)
	for say, want := range map[string]string{
		"+none\r\n": "",
		"+string\r\n$37\r\n10.0.0.1:80 weight=2\n10.0.0.2:80 # b\n\r\n": "10.0.0.1:80 2/0/0, 10.0.0.2:80 1/0/0",
		"+string\r\n$27\r\n[{\"address\":\"10.0.0.1:80\"}]\r\n":         "10.0.0.1:80 1/0/0",
		"+string\r\n$-1\r\n": "",
		"+set\r\n*2\r\n$11\r\n10.0.0.2:80\r\n$20\r\n10.0.0.1:80 weight=3\r\n":                                 "10.0.0.1:80 3/0/0, 10.0.0.2:80 1/0/0",
		"+hash\r\n*4\r\n$11\r\n10.0.0.2:80\r\n$0\r\n\r\n$1\r\nb\r\n$20\r\n10.0.0.1:80 weight=3\r\n":           "10.0.0.2:80 1/0/0, 10.0.0.1:80 3/0/0",
		"+hash\r\n*4\r\n$1\r\nb\r\n$20\r\n10.0.0.1:80 weight=3\r\n$1\r\na\r\n$20\r\n10.0.0.2:80 weight=1\r\n": "10.0.0.2:80 1/0/0, 10.0.0.1:80 3/0/0",
	} {
		sent := make(chan string, 1)
		at := lbtest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "+OK\r\n+OK\r\n"+say)
			b, _ := io.ReadAll(c)
			sent <- string(b)
		})
		s, err := NewRedis(RedisOptions{Address: at, Key: "web", DB: 2, User: "lb", Password: Secret{Value: "s3cret"}})
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, s, want)
		if got := <-sent; !strings.HasPrefix(got, "*3\r\n$4\r\nAUTH\r\n$2\r\nlb\r\n$6\r\ns3cret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*2\r\n$4\r\nTYPE\r\n$3\r\nweb\r\n") {
			t.Errorf("sent %q", got)
		}
	}
}

func TestRedisBadMoments(t *testing.T) {
	lbtest.CheckLeaks(t)
	for say, want := range map[string]string{
		"": "the stream was cut", "+string": "the stream was cut", "+string\r\n$5\r\nab": "the stream was cut", "+string\r\n$2\r\nabcd\r\n": "longer than it says",
		"+string\n": "does not end in CR LF", "\r\n": "does not end in CR LF", "%1\r\n": "want RESP2", "+set\r\n*1\r\n:1\r\n": "want strings", "+set\r\n*1\r\n$-1\r\n": "null in an array",
		"+set\r\n*99999999\r\n": "more than 4194304 bytes", "+string\r\n$99999999999999999999\r\n": "got the length", "+string\r\n$-2\r\n": "got the length",
		"+hash\r\n*1\r\n$1\r\na\r\n": "a field without a value", strings.Repeat("+", 5000): "more than 4096 bytes", "-ERR s3cret\r\n": "the server says ERR", "-s3cret\r\n": "says an error",
	} {
		at := lbtest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, say)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		})
		s, err := NewRedis(RedisOptions{Address: at, Key: "web"})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Fetch(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || len(list.Backends) > 0 {
			t.Errorf("%q: got %v; want %s", say, err, want)
		}
	}
	s, err := NewRedis(RedisOptions{Address: lbtest.Silent(t), Key: "web"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Fetch(ctx); err == nil {
		t.Error("an answer of one who says nothing")
	}
}

func TestRedisOptionsAreChecked(t *testing.T) {
	for _, o := range []RedisOptions{
		{}, {Address: "h:1"}, {Address: "h", Key: "a"}, {Address: ":1", Key: "a"}, {Address: "unix://a", Key: "a"}, {Address: "unix:///a", Key: "a", UseTLS: true},
		{Address: "h:1", Key: "a", DB: -1}, {Address: "h:1", Key: "a", User: "u"}, {Address: "h:1", Key: "a", TLS: HTTPTLS{Insecure: true}}, {Address: "h:1", Key: "a", MaxBytes: -1},
		{Address: "u:s3cret@h", Key: "a"},
	} {
		if _, err := NewRedis(o); err == nil || !strings.HasPrefix(err.Error(), "redis: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	s, err := NewRedis(RedisOptions{Address: "h:1", Key: "a", Password: Secret{Value: "s3cret"}})
	if err != nil || s.String() != "redis:h:1/0/a" {
		t.Error(s, err)
	}
	refused, err := NewRedis(RedisOptions{Address: "169.254.169.254:6379", Key: "a"})
	if err != nil {
		t.Fatal(err)
	}
	fetchFails(t, refused, ReasonRefused, "a link-local address")
}

// FuzzRedis reads any bytes as replies.
func FuzzRedis(f *testing.F) {
	f.Add("+OK\r\n*2\r\n$11\r\n10.0.0.1:80\r\n$0\r\n\r\n$11\r\n10.0.0.1:80\r\n")
	dec, err := newDecoder(Decoding{Lenient: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c := newRESP(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(in), io.Discard}, 1<<12)
		for {
			values, err := c.reply()
			if err != nil {
				return
			}
			n := 0
			for _, v := range values {
				n += len(v)
			}
			if n > 1<<12 {
				t.Errorf("%d bytes", n)
			}
			for _, command := range []string{"GET", "SMEMBERS", "HGETALL"} {
				list, err := dec.redis(command, slices.Clone(values))
				if err != nil {
					continue
				}
				for i := range list.Backends {
					if err := list.Backends[i].Check(); err != nil {
						t.Error(fmt.Errorf("%s: %w", command, err))
					}
				}
			}
		}
	})
}
