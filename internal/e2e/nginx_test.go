//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// web is an nginx that says its name at /, serves files at /files/ and takes them there by PUT.
type web struct {
	*program
	t       *testing.T
	name    string
	address string
	dir     string
}

// startWeb starts one. files is the directory of /files/.
func startWeb(t *testing.T, name, files string) *web {
	t.Helper()
	return startWebAs(t, name, "", fmt.Sprintf(`
				location = / { default_type text/plain; return 200 "%s\n"; }
				location /files/ { alias %s/; dav_methods PUT; }`, name, files))
}

// startWebAs starts one that listens as options say and whose server block has this text too.
func startWebAs(t *testing.T, name, options, server string) *web {
	t.Helper()
	w := &web{t: t, name: name, address: lbtest.Free(t), dir: openDir(t)}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // or it could not read the test's directories
	}
	write(t, w.dir, "nginx.conf", fmt.Sprintf(`
		daemon off;
		master_process off;
		%[1]s
		pid nginx.pid;
		error_log stderr warn;
		events { worker_connections 4096; }
		http {
			access_log off;
			keepalive_requests 1000000;
			client_max_body_size 100m;
			client_body_temp_path %[2]s/body;
			proxy_temp_path %[2]s/proxy;
			fastcgi_temp_path %[2]s/fastcgi;
			uwsgi_temp_path %[2]s/uwsgi;
			scgi_temp_path %[2]s/scgi;
			server {
				listen %[3]s backlog=4096 %[4]s;
				%[5]s
			}
		}`, user, w.dir, w.address, options, server))
	w.start()
	return w
}

// start starts it, at first or again.
func (w *web) start() {
	w.t.Helper()
	w.program = launch(w.t, nil, "nginx", "-e", "stderr", "-p", w.dir, "-c", "nginx.conf")
	w.waitFor(w.name+" listens", func() bool { return listens(w.address) })
}

// startWebs starts three, with one directory for files, and the balancer before them.
func startWebs(t *testing.T) (lb *awe4lb, webs []*web, files string) {
	t.Helper()
	files = openDir(t)
	var addresses []string
	for i := range 3 {
		w := startWeb(t, fmt.Sprint("nginx-", i+1), files)
		webs, addresses = append(webs, w), append(addresses, w.address)
	}
	return start(t, balance(addresses...)), webs, files
}

func TestCurlToNginx(t *testing.T) {
	lb, _, files := startWebs(t)
	url := "http://" + lb.address("test")
	curl := func(args ...string) string {
		t.Helper()
		return run(t, "curl", append([]string{"--silent", "--show-error", "--fail", "--max-time", "30"}, args...)...)
	}

	t.Run("GET", func(t *testing.T) {
		seen := map[string]int{}
		for range 9 {
			seen[curl(url+"/")]++
		}
		if seen["nginx-1\n"] != 3 || seen["nginx-2\n"] != 3 || seen["nginx-3\n"] != 3 {
			t.Errorf("nine requests went to %v; want three to each", seen)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if head := curl("--head", url+"/"); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || !strings.Contains(head, "Content-Length: 8\r\n") {
			t.Errorf("got %q", head)
		}
	})
	t.Run("keep-alive", func(t *testing.T) {
		got := curl("--write-out", "%{num_connects} ", url+"/", url+"/", url+"/")
		if !regexp.MustCompile(`^(nginx-\d)\n1 (nginx-\d)\n0 (nginx-\d)\n0 $`).MatchString(got) {
			t.Errorf("got %q; want one connection for three requests", got)
		}
		if strings.Count(got, got[:8]) != 3 {
			t.Errorf("got %q; want one backend for one connection", got)
		}
	})
	t.Run("HTTP1.0", func(t *testing.T) {
		if got := curl("--http1.0", "--include", url+"/"); !strings.Contains(got, "Connection: close") || !strings.Contains(got, "nginx-") {
			t.Errorf("got %q", got)
		}
	})
	const bytes = 50 << 20
	t.Run("download 50 MB", func(t *testing.T) {
		sent, got := sample(t, files, "big", bytes), filepath.Join(t.TempDir(), "got")
		curl("--output", got, url+"/files/big")
		if sha256Of(t, got) != sha256Of(t, sent) {
			t.Error("what came is not what nginx has")
		}
	})
	t.Run("upload 50 MB", func(t *testing.T) {
		sent := sample(t, t.TempDir(), "up", bytes)
		curl("--upload-file", sent, url+"/files/up")
		if sha256Of(t, filepath.Join(files, "up")) != sha256Of(t, sent) {
			t.Error("what nginx has is not what was sent")
		}
	})
}

// sha256Of returns the hash of a file's bytes.
func sha256Of(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// wrkResult is what wrk found.
type wrkResult struct {
	requests                      int64
	connect, read, write, timeout int64 // socket errors
	non2xx                        int64
}

func (r wrkResult) clean() bool { return r == wrkResult{requests: r.requests} && r.requests > 0 }

// wrk runs wrk with 64 connections for so many seconds.
func wrk(t *testing.T, url string, seconds int, headers ...string) wrkResult {
	t.Helper()
	return wrkEnded(startWrk(t, url, seconds, headers...))
}

func startWrk(t *testing.T, url string, seconds int, headers ...string) *program {
	t.Helper()
	args := []string{"--threads", "2", "--connections", "64", "--duration", fmt.Sprintf("%ds", seconds)}
	for _, h := range headers {
		args = append(args, "--header", h)
	}
	return launch(t, nil, "wrk", append(args, url)...)
}

// wrkEnded waits for wrk's end and reads its result.
func wrkEnded(p *program) wrkResult {
	p.t.Helper()
	lbtest.EventuallyIn(p.t, time.Minute, "wrk has ended", p.ended)
	if p.err != nil {
		p.t.Fatalf("wrk: %v", p.err)
	}
	out := p.out.String()
	numbers := func(pattern string) []int64 {
		var ns []int64
		for _, s := range regexp.MustCompile(pattern).FindStringSubmatch(out) {
			n, _ := strconv.ParseInt(s, 10, 64)
			ns = append(ns, n)
		}
		return ns
	}
	var r wrkResult
	if n := numbers(`(\d+) requests in`); n != nil {
		r.requests = n[1]
	}
	if n := numbers(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`); n != nil {
		r.connect, r.read, r.write, r.timeout = n[1], n[2], n[3], n[4]
	}
	if n := numbers(`Non-2xx or 3xx responses: (\d+)`); n != nil {
		r.non2xx = n[1]
	}
	return r
}

const (
	keepAlive = "Connection: keep-alive"
	closeEach = "Connection: close"
)

func TestWrkToNginx(t *testing.T) {
	lb, _, _ := startWebs(t)
	url := "http://" + lb.address("test") + "/"
	for _, mode := range []string{keepAlive, closeEach} {
		r := wrk(t, url, 3, mode)
		if !r.clean() {
			t.Errorf("wrk with %q: %+v; want no error", mode, r)
		}
		t.Logf("wrk with %q: %d requests/s", mode, r.requests/3)
	}
	// The thousands of short connections went round.
	backends := lb.status().Pools[0].Backends
	var sum int64
	for _, b := range backends {
		sum += b.Connected
	}
	for _, b := range backends {
		if share := float64(b.Connected) / float64(sum); share < 0.32 || share > 0.347 {
			t.Errorf("%s had %d of %d connections, %.1f %%; want a third", b.Address, b.Connected, sum, 100*share)
		}
		if len(b.ConnectErrors) != 0 {
			t.Errorf("%s: %v", b.Address, b.ConnectErrors)
		}
	}
	t.Logf("%d connections: %d, %d, %d", sum, backends[0].Connected, backends[1].Connected, backends[2].Connected)
}

func TestReloadUnderWrk(t *testing.T) {
	lb, webs, _ := startWebs(t)
	url := "http://" + lb.address("test") + "/"
	for _, mode := range []string{keepAlive, closeEach} {
		w := startWrk(t, url, 3, mode)
		n := 0
		for ; !w.ended(); n++ {
			// Each brings a change; SIGHUP and POST take turns.
			lb.edit(balance(webs[0].address, webs[1].address, webs[2].address) +
				fmt.Sprintf("connect_timeout = \"%ds\"\n", 1+n%5))
			if n%2 == 0 {
				lb.signal(syscall.SIGHUP)
			} else if err := lb.reload(); err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond) // the pace: one of each kind every 100 ms
		}
		r := wrkEnded(w)
		if !r.clean() {
			t.Errorf("wrk with %q during %d reloads: %+v; want no error", mode, n, r)
		}
		t.Logf("wrk with %q: %d requests/s during %d reloads", mode, r.requests/3, n)
	}
	lb.hangUp() // whatever was signalled before is done by now
	if n := lb.log.count("reloaded"); n < 20 {
		t.Errorf("%d reloads; want some 100 in 6 s", n)
	}
}

// A backend dies and comes back under load. What was on its way in a connection to it is lost with it: the balancer may
// not send a request twice. But nobody who connects after its death may notice.
func TestBackendDiesUnderWrk(t *testing.T) {
	lb, webs, _ := startWebs(t)
	address := lb.address("test")

	w := startWrk(t, "http://"+address+"/", 4, keepAlive)
	lbtest.Eventually(t, "wrk is connected", func() bool { return lb.status().Sessions.Open == 64 })
	visitors := startVisitors(address, 8)
	lbtest.Eventually(t, "the visitors are at work", func() bool { return visitors.served() > 200 })

	victim := webs[1]
	before := backend(lb, victim.address)
	victim.end(syscall.SIGKILL)
	died := time.Now() // one process: with it went its listening socket and its connections
	lbtest.Eventually(t, "connections to the dead one are refused", func() bool {
		return backend(lb, victim.address).ConnectErrors["connect_refused"] > 200
	})
	victim.start()
	back := backend(lb, victim.address).Connected
	lbtest.Eventually(t, "the one that is back has its share", func() bool {
		return backend(lb, victim.address).Connected > back+200
	})

	failures := visitors.stop()
	for _, f := range failures {
		if f.connected.After(died) {
			t.Errorf("a client that came %v after the death: %v", f.connected.Sub(died), f.err)
		}
	}
	if len(failures) > visitors.n {
		t.Errorf("%d connections of %d at a time were lost", len(failures), visitors.n)
	}
	// wrk's connections to the dead one are lost, once each, and made again.
	r := wrkEnded(w)
	if most := int64(before.Open); r.read+r.write > most || r.connect+r.timeout+r.non2xx > 0 {
		t.Errorf("wrk: %+v; want at most %d read or write errors, the sessions with the one that died", r, most)
	}
	t.Logf("%d visitors served, %d lost with the backend; wrk: %+v", visitors.served(), len(failures), r)
}

// backend returns what the status says of a backend of the only pool.
func backend(lb *awe4lb, address string) backendStatus {
	for _, b := range lb.status().Pools[0].Backends {
		if b.Address == address {
			return b
		}
	}
	return backendStatus{}
}

// visitors are clients that connect, ask once and go, again and again.
type visitors struct {
	n       int
	address string
	quit    chan bool
	wg      sync.WaitGroup

	mu       sync.Mutex
	ok       int
	failures []failure
}

type failure struct {
	connected time.Time // when it began to connect
	err       error
}

// startVisitors starts n of them.
func startVisitors(address string, n int) *visitors {
	v := &visitors{n: n, address: address, quit: make(chan bool)}
	for range n {
		v.wg.Go(func() {
			for {
				select {
				case <-v.quit:
					return
				default:
				}
				began := time.Now()
				err := visit(v.address)
				v.mu.Lock()
				if err == nil {
					v.ok++
				} else {
					v.failures = append(v.failures, failure{began, err})
				}
				v.mu.Unlock()
			}
		})
	}
	return v
}

func (v *visitors) served() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ok
}

// stop waits until all are gone and returns those that failed.
func (v *visitors) stop() []failure {
	close(v.quit)
	v.wg.Wait()
	return v.failures
}

// visit asks a web for its name and wants the whole answer.
func visit(address string) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(answer), "\r\n\r\nnginx-") {
		return fmt.Errorf("got %q", answer)
	}
	return nil
}
