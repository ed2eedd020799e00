package admin

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// taker is an HTTP server that takes metrics.
type taker struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	pushes []push
	status int // of the answers; 0: 204
}

type push struct {
	header http.Header
	path   string
	text   string
}

func newTaker(t *testing.T) *taker {
	k := &taker{t: t}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	return k
}

func (k *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	z, err := gzip.NewReader(r.Body)
	if err != nil || r.Method != http.MethodPost {
		k.t.Errorf("%s: %v", r.Method, err)
		return
	}
	text, err := io.ReadAll(z)
	if err != nil {
		k.t.Error(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pushes = append(k.pushes, push{r.Header, r.URL.RequestURI(), string(text)})
	status := k.status
	if status == 0 {
		status = http.StatusNoContent
	}
	w.Header().Set("Location", "/elsewhere")
	w.WriteHeader(status)
}

func (k *taker) answer(status int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = status
}

func (k *taker) all() []push {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]push(nil), k.pushes...)
}

// logged keeps what is logged.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// pushing starts an admin beside the one of the rig that pushes, and returns it with its log.
func (r *rig) pushing(p config.AdminPush) (*Server, *logged) {
	r.t.Helper()
	log, o := new(logged), r.s.o
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	c := open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")})
	c.Push = p
	s, err := Start(c, o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Stop(context.Background()) })
	return s, log
}

// reconfigure is what a reload does.
func reconfigure(t *testing.T, s *Server, p config.AdminPush) {
	t.Helper()
	c := open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")})
	c.Push = p
	apply, err := s.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	apply()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("apply took %v", took)
	}
}

const quick = 20 * time.Millisecond

func TestPush(t *testing.T) {
	k, r := newTaker(t), newRig(t, "127.0.0.1:1")
	s, log := r.pushing(config.AdminPush{URL: k.URL + "/api/v1/import/prometheus?key=hidden", Interval: quick,
		Labels: `instance="a b",zone="{x} \"y\""`, Bearer: "secret-token"})
	lbtest.Eventually(t, "three pushes", func() bool { return len(k.all()) >= 3 })
	got := k.all()[2]
	if got.path != "/api/v1/import/prometheus?key=hidden" || got.header.Get("Authorization") != "Bearer secret-token" ||
		got.header.Get("Content-Encoding") != "gzip" || got.header.Get("Content-Type") != textFormat || got.header.Get("User-Agent") != "awe4lb/v1.2.3" {
		t.Errorf("%s %v", got.path, got.header)
	}
	const extra = `{instance="a b",zone="{x} \"y\""`
	for line := range strings.Lines(got.text) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, extra) {
			t.Fatalf("without the labels: %s", line)
		}
	}
	for _, want := range []string{
		`awe4lb_draining` + extra + `} 0`,
		`awe4lb_server_connections_active` + extra + `,server="f",protocol="tcp"} 0`,
		`awe4lb_metrics_push_total` + extra + `,result="ok"} 2`,
		`awe4lb_metrics_push_total` + extra + `,result="failed"} 0`,
	} {
		if !strings.Contains(got.text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if !strings.Contains(got.text, "process_resident_memory_bytes"+extra+"}") {
		t.Error("no metrics of the process")
	}

	// The end has a last push of its own.
	reconfigure(t, s, config.AdminPush{URL: k.URL + "/slow", Interval: time.Hour})
	lbtest.Eventually(t, "the push by the new configuration", func() bool { return k.all()[len(k.all())-1].path == "/slow" })
	n := len(k.all())
	s.Stop(context.Background())
	if all := k.all(); len(all) != n+1 || all[n].path != "/slow" || all[n].header.Get("Authorization") != "" || strings.Contains(all[n].text, "instance=") {
		t.Errorf("%d pushes after the end, want 1 by the configuration in force", len(all)-n)
	}
	s.Stop(context.Background()) // again does nothing
	for _, secret := range []string{"hidden", "secret-token", k.URL} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %s:\n%s", secret, log)
		}
	}
}

// TestPushFails: one line in the log when it begins to fail and one when it works again, whatever the number of attempts.
func TestPushFails(t *testing.T) {
	k, r := newTaker(t), newRig(t, "127.0.0.1:1")
	k.answer(http.StatusTemporaryRedirect) // the token goes nowhere else
	s, log := r.pushing(config.AdminPush{URL: k.URL + "/?key=hidden", Interval: quick, Bearer: "secret-token"})
	lbtest.Eventually(t, "four attempts", func() bool { return s.push.failed.Load() >= 4 })
	for _, p := range k.all() {
		if p.path != "/?key=hidden" {
			t.Fatalf("followed to %s", p.path)
		}
	}
	k.answer(0)
	lbtest.Eventually(t, "it works again", func() bool { return s.push.sent.Load() >= 2 })
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d lines in the log, want 2:\n%s", got, log)
	}
	for _, want := range []string{`level=WARN msg="metrics cannot be pushed; trying again" error="the answer is 307: "`, `level=INFO msg="metrics are pushed"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}

	// Nobody there; and then a reload that switches it off.
	reconfigure(t, s, config.AdminPush{URL: "http://" + lbtest.Refused(t) + "/?key=hidden", Interval: quick, Bearer: "secret-token"})
	lbtest.Eventually(t, "refused", func() bool { return strings.Count(log.String(), "level=WARN") == 2 })
	reconfigure(t, s, config.AdminPush{})
	if s.push.current != nil {
		t.Error("still pushing")
	}
	for _, secret := range []string{"hidden", "secret-token"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %s:\n%s", secret, log)
		}
	}
}

// TestPushBacksOff: attempts that fail come at twice the interval, and so on.
func TestPushBacksOff(t *testing.T) {
	k, r := newTaker(t), newRig(t, "127.0.0.1:1")
	k.answer(http.StatusServiceUnavailable)
	begun := time.Now()
	s, _ := r.pushing(config.AdminPush{URL: k.URL, Interval: quick})
	lbtest.Eventually(t, "six attempts", func() bool { return s.push.failed.Load() >= 6 })
	if took, least := time.Since(begun), (1+2+4+8+16)*quick*95/100; took < least {
		t.Errorf("six attempts in %v, want at least %v", took, least)
	}
}

// TestPushToAHole: a server that takes the connection and never answers holds up neither a reload, nor scrapes, nor the end.
func TestPushToAHole(t *testing.T) {
	reached := make(chan bool, 8)
	hole := lbtest.Serve(t, func(c *net.TCPConn) {
		reached <- true
		_, _ = io.Copy(io.Discard, c)
	})
	r := newRig(t, "127.0.0.1:1")
	s, _ := r.pushing(config.AdminPush{URL: "http://" + hole, Interval: time.Hour})
	<-reached
	res, err := http.Get("http://" + s.Address() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if !regexp.MustCompile(`(?m)^awe4lb_metrics_push_total\{result="ok"\} 0$`).Match(body) {
		t.Error("no counters of pushes")
	}
	for i := range 3 {
		reconfigure(t, s, config.AdminPush{URL: "http://" + hole, Interval: time.Hour, Labels: fmt.Sprintf(`n="%d"`, i)})
		<-reached
	}
	begun := time.Now()
	s.Stop(context.Background())
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the end took %v, want a second", took)
	}
}
