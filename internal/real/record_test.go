//go:build real

package real

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exchange sends a request over a connection of its own and collects the bytes of the answer, as they come.
type exchange struct {
	t    *testing.T
	conn net.Conn
	got  []byte
}

// send opens one. body is JSON, or "" for a GET; header are lines.
func send(t *testing.T, network, address, path, body string, header ...string) *exchange {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n"
	if body != "" {
		head = "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	for _, h := range header {
		head += h + "\r\n"
	}
	if _, err := conn.Write([]byte(head + "\r\n" + body)); err != nil {
		t.Fatal(err)
	}
	return &exchange{t: t, conn: conn}
}

// until reads until what is there has text in it n times; "" = until the end.
func (x *exchange) until(text string, n int) []byte {
	x.t.Helper()
	_ = x.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 64<<10)
	for text == "" || bytes.Count(x.got, []byte(text)) < n {
		k, err := x.conn.Read(b)
		x.got = append(x.got, b[:k]...)
		if err != nil {
			if ne, ok := err.(net.Error); text != "" || ok && ne.Timeout() {
				x.t.Fatalf("%v after %q; want %s %d times", err, x.got, text, n)
			}
			break
		}
	}
	return x.got
}

func save(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join(*record, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", name, len(b))
}

const closing = "Connection: close"

func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("-record says where to")
	}
	t.Run("etcd", recordEtcd)
	t.Run("etcd-cluster", recordEtcdCluster)
	t.Run("docker", recordDocker)
	t.Run("lxd", recordLXD)
	t.Run("consul", recordConsul)
	t.Run("consul-acl", recordConsulACL)
	t.Run("consul-cluster", recordConsulCluster)
	t.Run("consul-agent", recordConsulAgent)
	t.Run("kubernetes-stream", recordKubeStream)
	t.Run("kubernetes-pages", recordKubePages)
	t.Run("kubernetes-nodes", recordKubeNodes)
}

func etcdJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func etcdWatch(from int) string {
	return etcdJSON(map[string]any{"create_request": map[string]any{"key": []byte(etcdPrefix), "range_end": []byte("/backends/web0"), "start_revision": from}})
}

func recordEtcd(t *testing.T) {
	w := newEtcd(t, 1)
	w.add(1, 1)
	w.add(2, 4)
	w.guarded()
	host := strings.TrimPrefix(w.urls[0], "http://")
	rangeOf := func(prefix string) string {
		return etcdJSON(map[string]any{"key": []byte(prefix), "range_end": []byte(strings.TrimSuffix(prefix, "/") + "0")})
	}
	ask := func(path, body string, header ...string) []byte {
		return send(t, "tcp", host, path, body, append(header, closing)...).until("", 0)
	}
	login := func() (answer []byte, header string) {
		answer = ask("/v3/auth/authenticate", `{"name":"lb","password":"s3cret"}`)
		var a struct{ Token string }
		if err := json.Unmarshal(answer[bytes.Index(answer, []byte("\r\n\r\n")):], &a); err != nil {
			t.Fatal(err)
		}
		return answer, "Authorization: " + a.Token
	}
	answer, token := login()
	save(t, "etcd/token.http", answer)
	save(t, "etcd/range.http", ask("/v3/kv/range", rangeOf(etcdPrefix), token))
	save(t, "etcd/nouser.http", ask("/v3/kv/range", rangeOf(etcdPrefix)))
	save(t, "etcd/denied.http", ask("/v3/kv/range", rangeOf("/others/"), token))
	save(t, "etcd/wrongpassword.http", ask("/v3/auth/authenticate", `{"name":"lb","password":"wrong"}`))
	x := send(t, "tcp", host, "/v3/watch", etcdWatch(4), token)
	x.until(`"created":true`, 1)
	w.add(3, 1)
	w.change(2, 9)
	w.remove(1)
	x.until(`"DELETE"`, 1)
	w.stop(syscall.SIGKILL)
	save(t, "etcd/watch.http", x.until("", 0))
	w.start()
	save(t, "etcd/expired.http", ask("/v3/kv/range", rangeOf(etcdPrefix), token))
	_, token = login()
	w.ctl("compact", "6")
	x = send(t, "tcp", host, "/v3/watch", etcdWatch(2), token)
	save(t, "etcd/compacted.http", x.until("compact_revision", 1))
}

func recordEtcdCluster(t *testing.T) {
	w := newEtcd(t, 3)
	w.add(1, 1)
	stays := (w.leader() + 1) % 3
	host := strings.TrimPrefix(w.urls[stays], "http://")
	x := send(t, "tcp", host, "/v3/watch", etcdWatch(2), "Grpc-Metadata-Hasleader: true")
	x.until(`"created":true`, 1)
	for i, p := range w.members {
		if i != stays {
			p.stop(syscall.SIGKILL)
		}
	}
	save(t, "etcd/noleader-watch.http", x.until("error", 1))
	body := etcdJSON(map[string]any{"key": []byte(etcdPrefix), "range_end": []byte("/backends/web0")})
	save(t, "etcd/noleader-range.http", send(t, "tcp", host, "/v3/kv/range", body, closing).until("", 0))
}

func recordDocker(t *testing.T) {
	w := newDocker(t)
	w.add(1, 1)
	w.add(2, 4)
	w.docker("run", "-d", "--name", "p1", "--label", "awe4lb.pool=web", "--env", "HOST=192.0.2.7", "-p", "8081:8080", "-p", "10.77.0.1:8082:8080", "named:1")
	w.docker("run", "-d", "--name", "h1", "--label", "awe4lb.pool=web", "--label", "awe4lb.port=8080", "--network", "host", "named:1")
	ask := func(path string) []byte { return send(t, "unix", w.socket, path, "", closing).until("", 0) }
	save(t, "docker/ping.http", ask("/_ping"))
	save(t, "docker/containers.http", ask("/v1.41/containers/json"))
	save(t, "docker/inspect.http", ask("/v1.41/containers/p1/json"))
	save(t, "docker/gone.http", ask("/v1.41/containers/none/json"))
	save(t, "docker/newer.http", ask("/v1.99/containers/json"))
	x := send(t, "unix", w.socket, "/v1.41/events", "")
	w.add(3, 1)
	w.docker("pause", "w3")
	w.docker("unpause", "w3")
	w.remove(1)
	x.until(`"destroy"`, 1)
	w.stop(syscall.SIGKILL)
	save(t, "docker/events.http", x.until("", 0))
	w.start()
}

func recordLXD(t *testing.T) {
	w := newLXD(t)
	w.add(1, 1)
	w.add(2, 4)
	w.lxc("init", "named", "stopped", "-c", "user.awe4lb.pool=web")
	socket := filepath.Join(w.dir, "unix.socket")
	ask := func(path string) []byte { return send(t, "unix", socket, path, "", closing).until("", 0) }
	save(t, "lxd/instances.http", ask("/1.0/instances?recursion=1"))
	save(t, "lxd/state-w1.http", ask("/1.0/instances/w1/state"))
	save(t, "lxd/state-w2.http", ask("/1.0/instances/w2/state"))
	save(t, "lxd/state-stopped.http", ask("/1.0/instances/stopped/state"))
	save(t, "lxd/gone.http", ask("/1.0/instances/none/state"))
	x := send(t, "unix", socket, "/1.0/events?type=lifecycle", "", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: "+base64.StdEncoding.EncodeToString([]byte("sixteen bytes it")))
	head := len(x.until("\r\n\r\n", 1))
	w.change(2, 9)
	w.add(3, 1)
	w.remove(1)
	x.until("instance-deleted", 1)
	w.stop(syscall.SIGTERM)
	all := x.until("", 0)
	save(t, "lxd/events.frames", all[head:])
	w.start()
}
