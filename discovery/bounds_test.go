package discovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// asking makes a source of each kind that asks a server, at host:port or, for lxd, at a socket; an answer of more than most
// bytes (0 = 4 MiB) is too large.
var asking = map[string]func(at, socket string, most int64) (Source, error){
	"http": func(at, _ string, most int64) (Source, error) {
		return NewHTTP(HTTPOptions{URL: "http://" + at, Allow: allowLoopback, MaxBytes: most})
	},
	"consul": func(at, _ string, most int64) (Source, error) {
		return NewConsul(ConsulOptions{URL: "http://" + at, Service: "web", MaxBytes: most})
	},
	"docker": func(at, _ string, most int64) (Source, error) {
		return NewDocker(DockerOptions{Endpoint: "http://" + at, MaxBytes: most})
	},
	"etcd": func(at, _ string, most int64) (Source, error) {
		return NewEtcd(EtcdOptions{Endpoints: []string{"http://" + at}, Prefix: "/b/", MaxBytes: most})
	},
	"kubernetes": func(at, _ string, most int64) (Source, error) {
		return NewKubernetes(KubernetesOptions{URL: "http://" + at, Namespace: "a", Service: "web", MaxBytes: most})
	},
	"lxd": func(_, socket string, most int64) (Source, error) {
		return NewLXD(LXDOptions{URL: "unix://" + socket, MaxBytes: most})
	},
	"redis": func(at, _ string, most int64) (Source, error) {
		return NewRedis(RedisOptions{Address: at, Key: "web", MaxBytes: most})
	},
}

// serveBoth has handle behind an address and a socket. It is called when something was asked, which is thrown away.
func serveBoth(t *testing.T, handle func(c net.Conn)) (at, socket string) {
	t.Helper()
	both := func(c net.Conn) {
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		drained := doneChannel(func() { _, _ = io.Copy(io.Discard, c) })
		handle(c)
		if w, ok := c.(interface{ CloseWrite() error }); ok { // a Close with questions unread would be a reset
			_ = w.CloseWrite()
		}
		<-drained
	}
	socket = filepath.Join(t.TempDir(), "s")
	lbtest.ServeUnix(t, socket, both)
	return lbtest.Serve(t, func(c *net.TCPConn) { both(c) }), socket
}

// begins is how an answer of a kind begins, before its body.
func begins(kind string) string {
	if kind == "redis" {
		return fmt.Sprintf("+string\r\n$%d\r\n", 1<<20)
	}
	return "HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
}

// TestHugeBodies: a body without an end is left alone after max_bytes, whatever the kind.
func TestHugeBodies(t *testing.T) {
	for kind, make := range asking {
		t.Run(kind, func(t *testing.T) {
			var sent atomic.Int64
			at, socket := serveBoth(t, func(c net.Conn) {
				_, _ = io.WriteString(c, begins(kind))
				for b := bytes.Repeat([]byte(" "), 64<<10); ; {
					n, err := c.Write(b)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			})
			s, err := make(at, socket, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			list, err := s.Fetch(ctx)
			if ReasonOf(err) != ReasonTooLarge || len(list.Backends) > 0 {
				t.Errorf("got %v", err)
			}
			if n := sent.Load(); n > 32<<20 { // what etcd may say is more, and sockets have buffers
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// TestSlowBodies: a body that never ends to come ends with the time that there is for it.
func TestSlowBodies(t *testing.T) {
	for kind, make := range asking {
		t.Run(kind, func(t *testing.T) {
			gone := t.Context()
			begun := atomic.Bool{}
			at, socket := serveBoth(t, func(c net.Conn) {
				_, _ = io.WriteString(c, begins(kind))
				for tick := time.NewTicker(5 * time.Millisecond); ; {
					if _, err := io.WriteString(c, " "); err != nil {
						return
					}
					begun.Store(true)
					select {
					case <-tick.C:
					case <-gone.Done():
						return
					}
				}
			})
			s, err := make(at, socket, 0)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			if _, err = s.Fetch(ctx); err == nil || !begun.Load() || ctx.Err() == nil {
				t.Errorf("got %v, begun %v", err, begun.Load())
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// TestLongLists: 10,000 backends are a list, and one more than max_backends is none.
func TestLongLists(t *testing.T) {
	const n = 10000
	var text, instances strings.Builder
	for i := range n {
		ip := fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)
		fmt.Fprintf(&text, "%s:80\n", ip)
		instances.WriteString("," + instance(ip))
	}
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	says := map[string]string{
		"http":   strings.Replace(begins("http"), "application/json", "text/plain", 1) + text.String(),
		"consul": begins("consul") + "[" + instances.String()[1:] + "]",
		"redis":  fmt.Sprintf("+string\r\n$%d\r\n%s\r\n", text.Len(), text.String()),
	}
	sources := map[string]func() (Source, error){
		"file": func() (Source, error) { return NewFile(FileOptions{Path: path}) },
		"exec": func() (Source, error) { return NewExec(ExecOptions{Argv: []string{"/bin/cat", path}}) },
	}
	for kind, say := range says {
		at, socket := serveBoth(t, func(c net.Conn) { _, _ = io.WriteString(c, say) })
		sources[kind] = func() (Source, error) { return asking[kind](at, socket, 0) }
	}
	for kind, make := range sources {
		t.Run(kind, func(t *testing.T) {
			for _, most := range []int{n, n - 1} {
				s, err := make()
				if err != nil {
					t.Fatal(err)
				}
				set := Defaults()
				set.MaxBackends, set.Debounce = most, 0
				r, err := New("web", []Source{s}, set)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := doneChannel(func() { r.Run(ctx, func([]Backend) {}) })
				lbtest.Eventually(t, "an answer", func() bool { return len(r.List()) > 0 || r.Status().Sources[0].Failures > 0 })
				st := r.Status().Sources[0]
				if good := most == n; good && len(r.List()) != n || !good && (st.Reason != ReasonTooLarge || len(r.List()) != 0) {
					t.Errorf("at most %d: %d backends, %s %s", most, len(r.List()), st.Reason, st.Error)
				}
				cancel()
				<-done
			}
		})
	}
}

func doneChannel(f func()) chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}
