//go:build real

package real

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// redisWorld is a Redis that writes everything down at once. The list is a hash.
type redisWorld struct {
	t      *testing.T
	server *process
	socket string
	outside
}

func newRedis(t *testing.T) *redisWorld {
	t.Helper()
	dir := shortDir(t)
	w := &redisWorld{t: t, socket: filepath.Join(dir, "s")}
	w.server = &process{t: t, log: filepath.Join(dir, "log"), argv: []string{"redis-server", "--port", "0", "--unixsocket", w.socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--requirepass", "s3cret"}}
	t.Cleanup(func() { w.server.stop(syscall.SIGTERM) })
	w.start()
	return w
}

func (w *redisWorld) cli(args ...string) (string, bool) {
	return try(nil, "redis-cli", append([]string{"-s", w.socket, "-a", "s3cret", "--no-auth-warning", "-n", "2"}, args...)...)
}

func (w *redisWorld) do(args ...string) {
	w.t.Helper()
	if out, ok := w.cli(args...); !ok || strings.HasPrefix(out, "ERR") {
		w.t.Fatal(args, out)
	}
}

func (w *redisWorld) start() {
	w.t.Helper()
	w.server.start()
	until(w.t, "redis answers", 30*time.Second, func() bool { out, ok := w.cli("ping"); return ok && strings.HasPrefix(out, "PONG") })
}

func (w *redisWorld) stop(s syscall.Signal) { w.server.stop(s) }

func (w *redisWorld) with(edit func(*discovery.RedisOptions)) discovery.Source {
	o := discovery.RedisOptions{Address: "unix://" + w.socket, Key: "web", DB: 2, Password: discovery.Secret{Value: "s3cret"}}
	edit(&o)
	s, err := discovery.NewRedis(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *redisWorld) source() discovery.Source { return w.with(func(*discovery.RedisOptions) {}) }

func (w *redisWorld) table() string {
	return fmt.Sprintf("kind = \"redis\"\nurl = \"unix://%s\"\nname = \"web\"\ndb = 2\npassword = \"s3cret\"\n", w.socket)
}

func (w *redisWorld) add(n, weight int) string {
	w.t.Helper()
	address := w.at(n)
	w.do("hset", "web", fmt.Sprint(n), fmt.Sprintf("%s weight=%d", address, weight))
	return entry(address, weight)
}

func (w *redisWorld) change(n, weight int) string { return w.add(n, weight) }

func (w *redisWorld) remove(n int) { w.do("hdel", "web", fmt.Sprint(n)) }

func TestRedis(t *testing.T) { tell(t, newRedis(t)).whole() }

// TestRedisTypes is what a key may be, and who may ask.
func TestRedisTypes(t *testing.T) {
	w := newRedis(t)
	gets := func(want ...string) {
		t.Helper()
		list, err := w.source().Fetch(t.Context())
		if got := fmt.Sprint(entries(list.Backends)); err != nil || got != fmt.Sprint(want) {
			t.Errorf("got %v %v; want %v", got, err, want)
		}
	}
	fails := func(s discovery.Source, reason, want string) {
		t.Helper()
		_, err := s.Fetch(t.Context())
		if err == nil || discovery.ReasonOf(err) != reason || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v; want %s: %s", err, reason, want)
		}
	}
	gets()
	w.do("set", "web", "10.0.0.1:80 weight=2\n10.0.0.2:80\n")
	gets("10.0.0.1:80 weight=2", "10.0.0.2:80 weight=1")
	w.do("set", "web", `[{"address":"10.0.0.1:80"}]`)
	gets("10.0.0.1:80 weight=1")
	w.do("del", "web")
	w.do("sadd", "web", "10.0.0.2:80", "10.0.0.1:80 weight=3", `{"host":"10.0.0.3","port":80}`)
	gets("10.0.0.1:80 weight=3", "10.0.0.2:80 weight=1", "10.0.0.3:80 weight=1")
	w.do("del", "web")
	w.do("hset", "web", "10.0.0.2:80", "")
	gets("10.0.0.2:80 weight=1")
	w.do("del", "web")
	w.do("zadd", "web", "1", "a")
	fails(w.source(), discovery.ReasonDecode, `the key is a "zset"`)
	w.do("del", "web")
	w.do("set", "web", strings.Repeat("a", 2000))
	fails(w.with(func(o *discovery.RedisOptions) { o.MaxBytes = 1000 }), discovery.ReasonTooLarge, "more than 1000 bytes")
	fails(w.with(func(o *discovery.RedisOptions) { o.Password.Value = "s3cret-not" }), discovery.ReasonStatus, "the server says WRONGPASS")
	fails(w.with(func(o *discovery.RedisOptions) { o.Password.Value = "" }), discovery.ReasonStatus, "the server says NOAUTH")
	fails(w.with(func(o *discovery.RedisOptions) { o.User = "nobody" }), discovery.ReasonStatus, "the server says WRONGPASS")
	w.do("acl", "setuser", "lb", "on", ">s3cret-lb", "~web", "+type", "+get", "+smembers", "+hgetall", "+select") // as documented
	if _, err := w.with(func(o *discovery.RedisOptions) { o.User, o.Password.Value = "lb", "s3cret-lb"; o.MaxBytes = 1 << 20 }).Fetch(t.Context()); err == nil || discovery.ReasonOf(err) != discovery.ReasonDecode {
		t.Errorf("got %v; want what is wrong with the value", err)
	}
	fails(w.with(func(o *discovery.RedisOptions) { o.DB = 99 }), discovery.ReasonStatus, "the server says ERR")
}
