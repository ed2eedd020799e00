package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// probeOnce makes one probe of a backend, with a health table as the configuration has it.
func probeOnce(t *testing.T, backend, health string) outcome {
	t.Helper()
	cfg := parse(t, fmt.Sprintf("[pools.p]\nbackends = [{address = %q}]\n[pools.p.health]\n%s\n", backend, health))
	p := New(Options{Log: slog.New(slog.DiscardHandler)})
	defer p.Close()
	begun := time.Now()
	o := p.run(context.Background(), newCheck(cfg.Pools[0], cfg.Pools[0].Backends[0]))
	if took := time.Since(begun); took > cfg.Pools[0].Health.Timeout+time.Second {
		t.Errorf("%s: took %v", health, took)
	}
	for _, s := range []string{o.why, o.note} {
		if len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("%s: not one clean line: %q", health, s)
		}
	}
	return o
}

// expectOutcome checks a verdict, and what is said.
func expectOutcome(t *testing.T, what string, o outcome, v verdict, said string) {
	t.Helper()
	if o.verdict != v || !strings.Contains(o.why, said) {
		t.Errorf("%s: got %v, %q; want %v, %q", what, o.verdict, o.why, v, said)
	}
}

// says is a backend that says something when it hears the first byte, or at once, and then closes.
func says(t *testing.T, first bool, text string) string {
	return lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 4096)
		if !first {
			_, _ = c.Read(b)
		}
		_, _ = io.WriteString(c, text)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

// trickles says a byte every 50 ms, for ever.
func trickles(t *testing.T) string {
	return lbtest.Serve(t, func(c *net.TCPConn) {
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

const quick = "timeout = '300ms'\n"

// TestEveryKindMeetsLiars: whatever is at the other end, a probe ends in time, says why, and leaves nothing behind.
func TestEveryKindMeetsLiars(t *testing.T) {
	lbtest.CheckLeaks(t)
	kinds := map[string]string{
		"tcp":           "expect = 'ready'\n",
		"tls":           "kind = 'tls'\n",
		"http":          "kind = 'http'\n",
		"https":         "kind = 'http'\ntls = 'yes'\n",
		"grpc":          "kind = 'grpc'\n",
		"grpcs":         "kind = 'grpc'\ntls = 'yes'\n",
		"redis":         "kind = 'redis'\n",
		"redis, TLS":    "kind = 'redis'\ntls = 'yes'\n",
		"postgres":      "kind = 'postgres'\n",
		"postgres, TLS": "kind = 'postgres'\ntls = 'yes'\n",
		"mysql":         "kind = 'mysql'\n",
	}
	liars := map[string]string{
		"refuses":      lbtest.Refused(t),
		"blackhole":    lbtest.Blackhole(t),
		"is silent":    lbtest.Silent(t),
		"closes":       lbtest.Serve(t, func(*net.TCPConn) {}),
		"resets":       lbtest.Serve(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) }),
		"says garbage": says(t, true, "\x1b[31m\x00\xff garbage\r\n\r\n"),
		"echoes":       lbtest.Echo(t),
		"floods":       lbtest.Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, 1<<40)) }),
		"trickles":     trickles(t),
		"half-open":    lbtest.Serve(t, func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }),
		"no socket":    "unix:" + filepath.Join(t.TempDir(), "none"),
	}
	for kind, health := range kinds {
		t.Run(kind, func(t *testing.T) {
			for liar, address := range liars {
				h := quick + health
				if strings.HasPrefix(address, "unix:") && (kind == "tls" || strings.HasSuffix(kind, "TLS") || strings.HasSuffix(kind, "s") && strings.Contains(health, "yes")) {
					h += "server_name = 'x.test'\n"
				}
				o := probeOnce(t, address, h)
				if o.verdict != bad || o.why == "" {
					t.Errorf("%s: got %v, %q; want bad", liar, o.verdict, o.why)
				}
				t.Logf("%-12s  %s", liar, o.why)
			}
		})
	}
	o := probeOnce(t, liars["says garbage"], quick+"kind = 'agent'\nport = "+portOf(liars["says garbage"])+"\n")
	expectOutcome(t, "agent", o, bad, "want up")
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

func TestTCP(t *testing.T) {
	lbtest.CheckLeaks(t)
	greets := says(t, true, "220 mail ready\r\n250 ok\r\n")
	echo := lbtest.Echo(t)
	unix := lbtest.ServeUnix(t, filepath.Join(t.TempDir(), "s"), func(c net.Conn) { _, _ = io.Copy(c, c) })
	slow := lbtest.Serve(t, func(c *net.TCPConn) {
		for _, s := range []string{"22", "0 ", "re", "ady"} {
			_, _ = io.WriteString(c, s)
			time.Sleep(20 * time.Millisecond)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{echo, "", good, "accepts connections"},
		{lbtest.Silent(t), "", good, "accepts connections"}, // nobody accepts them but the kernel: see expect
		{unix, "send = 'a'\nexpect = 'a'", good, "as expected"},
		{lbtest.Refused(t), "", bad, "connect: connection refused"},
		{lbtest.Blackhole(t), quick, bad, "connect: no answer within 300ms"},
		{greets, "expect = '220 '", good, "as expected"},
		{greets, "expect = '221'", bad, `got "220 mail ready\r\n250 ok\r\n"; want "221"`},
		{greets, "expect_regexp = '(?s)^220 .*\\n250[ -]'", good, "as expected"},
		{greets, "expect_regexp = 'nothing'", bad, "matches"},
		{greets, "expect = '220 mail ready\\r\\n250 ok\\r\\nmore'", bad, "got only"},
		{slow, "expect = '220 ready'", good, "as expected"},
		{slow, "expect_regexp = 'ready$'", good, "as expected"},
		{slow, quick + "expect_regexp = 'more'", bad, `no answer within 300ms after "220 ready"`},
		{echo, "send = '\\x00\\xff\\r\\n'\nexpect = '\\x00\\xff'", good, "as expected"},
		{echo, "send = 'abcdef'\nexpect_regexp = 'f'\nread_limit = 3", bad, "matches"},
		{echo, "source = '127.0.0.9'", good, "accepts"},
		{echo, "source = '192.0.2.1'", unknown, "cannot assign requested address"},
		{"127.0.0.9:1", "address = '127.0.0.1'\nport = " + portOf(echo), good, "accepts"},
	} {
		expectOutcome(t, tc.backend+" "+tc.health, probeOnce(t, tc.backend, tc.health), tc.verdict, tc.said)
	}
}

func TestUDP(t *testing.T) {
	lbtest.CheckLeaks(t)
	echo := lbtest.EchoDatagrams(t)
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	gone, _ := net.ListenPacket("udp", "127.0.0.1:0")
	gone.Close()
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{echo, "send = 'ping'\nexpect = 'pi'", good, "as expected"},
		{echo, "send = 'ping'\nexpect = 'po'", bad, `got "ping"; want "po"`},
		{echo, "send = 'ping'\nexpect = 'ping-pong'", bad, "got only"},
		{echo, "send = 'ping'\nexpect_regexp = '^p.ng$'", good, "as expected"},
		{echo, "send = 'ping'", good, "it answers"},
		{mute.LocalAddr().String(), quick + "send = 'ping'", good, "nobody says"},
		{mute.LocalAddr().String(), quick + "send = 'ping'\nexpect = 'p'", bad, "no answer within"},
		{gone.LocalAddr().String(), quick + "send = 'ping'", bad, "nobody listens"},
		{gone.LocalAddr().String(), quick + "send = 'ping'\nexpect = 'p'", bad, "nobody listens"},
		{echo, "send = 'ping'\nexpect = 'p'\nsource = '127.0.0.9'", good, "as expected"},
	} {
		expectOutcome(t, tc.health, probeOnce(t, tc.backend, "kind = 'udp'\n"+tc.health), tc.verdict, tc.said)
	}
}

// serveTLS serves a handler over TLS with a certificate for names.
func serveTLS(t *testing.T, config *tls.Config, handle func(*tls.Conn)) string {
	return lbtest.Serve(t, func(raw *net.TCPConn) {
		_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Server(raw, config)
		if c.Handshake() == nil {
			handle(c)
		}
		_ = c.Close()
	})
}

func TestTLS(t *testing.T) {
	lbtest.CheckLeaks(t)
	ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
	file, otherFile := lbtest.Files(t, "ca.pem", ca.PEM), lbtest.Files(t, "other.pem", other.PEM)
	greet := func(c *tls.Conn) { _, _ = io.WriteString(c, "hello"); _, _ = io.Copy(io.Discard, c) }
	right := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Pair("back.test", "127.0.0.1")}}, greet)
	expired, err := tls.X509KeyPair(ca.Issue(lbtest.Leaf{Names: []string{"back.test"}, Until: time.Now().Add(-time.Minute)}))
	if err != nil {
		t.Fatal(err)
	}
	old := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{expired}}, greet)
	wants := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Pair("back.test")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool, MaxVersion: tls.VersionTLS12}, greet)
	us := lbtest.Files(t, "us.pem")
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"us"}})
	if err := os.WriteFile(us, append(cert, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{right, "ca = '" + file + "'\nserver_name = 'back.test'", good, "accepts"},
		{right, "ca = '" + file + "'", good, "accepts"}, // by its IP address
		{right, "ca = '" + file + "'\nserver_name = 'back.test'\nexpect = 'hello'", good, "as expected"},
		{right, "ca = '" + file + "'\nserver_name = 'other.test'", bad, "not other.test"},
		{right, "ca = '" + otherFile + "'\nserver_name = 'back.test'", bad, "unknown authority"},
		{right, "server_name = 'back.test'", bad, "unknown authority"},
		{right, "insecure_skip_verify = true", good, "accepts"},
		{old, "ca = '" + file + "'\nserver_name = 'back.test'", bad, "expired"},
		{wants, "ca = '" + file + "'\nserver_name = 'back.test'", bad, "TLS"},
		{wants, "ca = '" + file + "'\nserver_name = 'back.test'\ncert = '" + us + "'", good, "accepts"},
		{right, "ca = '" + file + ".none'", unknown, "no such file"},
	} {
		o := probeOnce(t, tc.backend, "kind = 'tls'\n"+tc.health)
		expectOutcome(t, tc.health, o, tc.verdict, tc.said)
		if o.verdict == good && (time.Until(o.expires) < time.Hour || time.Until(o.expires) > 25*time.Hour) {
			t.Errorf("%s: expires at %v", tc.health, o.expires)
		}
	}
}

// TestMaterialIsReadAgain: authorities that change are used by the probes that follow; a file that is broken changes nothing.
func TestMaterialIsReadAgain(t *testing.T) {
	ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
	file := lbtest.Files(t, "ca.pem", other.PEM)
	backend := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Pair("127.0.0.1")}}, func(*tls.Conn) {})
	cfg := parse(t, fmt.Sprintf("[pools.p]\nbackends = [{address = %q}]\nhealth = {kind = 'tls', ca = %q}", backend, file))
	p := New(Options{Log: slog.New(slog.DiscardHandler)})
	defer p.Close()
	if err := p.Prepare(cfg); err != nil {
		t.Fatal(err)
	}
	c := newCheck(cfg.Pools[0], cfg.Pools[0].Backends[0])
	expectOutcome(t, "the wrong authority", p.run(context.Background(), c), bad, "unknown authority")
	for i, content := range [][]byte{ca.PEM, []byte("half written"), nil} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.materials.client(c, time.Now().Add(time.Duration(i+1)*2*lookEvery)); err != nil {
			t.Error(err)
		}
		expectOutcome(t, "the right one", p.run(context.Background(), c), good, "")
	}
	if errs := Check(cfg); len(errs) != 1 || !strings.Contains(errs[0].Error(), "test.toml:") || !strings.Contains(errs[0].Error(), "empty") {
		t.Errorf("mistakes: %v", errs)
	}
}

// TestExpiryWarning: once a day, before it is too late.
func TestExpiryWarning(t *testing.T) {
	var log strings.Builder
	b := newBench(t)
	b.p.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	cfg := parse(t, "[pools.p]\nbackends = [{address = '127.0.0.1:1'}]\nhealth = {kind = 'tls', expiry_warning = '48h'}")
	tg := &subject{check: newCheck(cfg.Pools[0], cfg.Pools[0].Backends[0]), backends: []*backend{{key: Key{"p", cfg.Pools[0].Backends[0].Address}}}}
	ends := time.Now().Add(72 * time.Hour)
	for h := range 72 {
		b.p.warnExpiry(tg, ends, time.Now().Add(time.Duration(h)*time.Hour))
	}
	if n := strings.Count(log.String(), "expires soon"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
}

func TestHTTP(t *testing.T) {
	lbtest.CheckLeaks(t)
	var hits atomic.Int64
	handler := http.NewServeMux()
	handler.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		fmt.Fprintf(w, "%s %s %s %s %s all is well", r.Method, r.Host, r.URL.RawQuery, r.Header.Get("X-Check"), r.UserAgent())
	})
	handler.HandleFunc("/503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	handler.HandleFunc("/204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	handler.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/health", http.StatusFound) })
	handler.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/health", http.StatusFound)
	})
	handler.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	handler.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, lbtest.NewStream(1, 1<<30))
	})
	handler.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
	})
	handler.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "a part")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s := httptest.NewServer(handler)
	defer s.Close()
	backend := s.Listener.Addr().String()
	for _, tc := range []struct {
		health  string
		verdict verdict
		said    string
	}{
		{"path = '/health'", good, "status 200"},
		{"path = '/health'\nmethod = 'HEAD'", good, "status 200"},
		{"path = '/none'", bad, "status: got 404; want 200-399"},
		{"path = '/none'\nstatus = '200,404'", good, "status 404"},
		{"path = '/503'", bad, "got 503"},
		{"path = '/204'\nstatus = '204'", good, "status 204"},
		{"path = '/health'\nbody = 'well'", good, "body are as expected"},
		{"path = '/health'\nbody = 'ill'", bad, "body: got"},
		{"path = '/health?a=1'\nhost = 'www.test'\nheaders = ['X-Check: yes']\nbody = 'GET www.test a=1 yes awe4lb-health'", good, ""},
		{"path = '/health'\nbody = 'GET " + backend + " '", good, ""},
		{"path = '/health'\nbody_regexp = '(?i)ALL is w.ll$'", good, ""},
		{"path = '/health'\nbody_regexp = '^well'", bad, "want what matches"},
		{"path = '/moved'", good, "status 302"},
		{"path = '/moved'\nstatus = '200'", bad, "got 302"},
		{"path = '/moved'\nstatus = '200'\nfollow_redirects = true", good, "status 200"},
		{"path = '/away'\nstatus = '200'\nfollow_redirects = true\nbody = '169.254.169.254'", good, ""}, // the name, on the backend
		{"path = '/round'\nstatus = '200'\nfollow_redirects = true", bad, "got 302"},
		{"path = '/huge'\nbody = 'none'\nread_limit = 1000", bad, "body: got"},
		{"path = '/header'", bad, "answer:"},
		{quick + "path = '/stuck'", good, "status 200"},
		{quick + "path = '/stuck'\nbody = 'a part'", good, ""}, // what is wanted has come
		{quick + "path = '/stuck'\nbody = 'more'", bad, "body: no answer within"},
		{"tls = 'yes'", bad, "TLS"},
	} {
		o := probeOnce(t, backend, "kind = 'http'\n"+tc.health)
		expectOutcome(t, tc.health, o, tc.verdict, tc.said)
	}
	if n := hits.Load(); n == 0 {
		t.Error("nobody asked")
	}
}

// silent is for servers whose clients are meant to fail.
var silent = log.New(io.Discard, "", 0)

func TestHTTPS(t *testing.T) {
	lbtest.CheckLeaks(t)
	ca := lbtest.NewCA(t)
	file := lbtest.Files(t, "ca.pem", ca.PEM)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.Host, " ", r.TLS.ServerName)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = silent
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Pair("back.test")}}
	s.StartTLS()
	defer s.Close()
	backend := s.Listener.Addr().String()
	base := "kind = 'http'\ntls = 'yes'\nca = '" + file + "'\n"
	o := probeOnce(t, backend, base+"server_name = 'back.test'\nbody = 'HTTP/1.1 back.test back.test'")
	expectOutcome(t, "https", o, good, "")
	if o.expires.IsZero() {
		t.Error("the certificate was not looked at")
	}
	expectOutcome(t, "another name", probeOnce(t, backend, base), bad, "TLS:")
	expectOutcome(t, "no TLS", probeOnce(t, backend, "kind = 'http'"), bad, "got 400")
}

// healthService is a gRPC health server made by hand.
func healthService(t *testing.T, config *tls.Config, answer func(service string) (body []byte, status, message string)) string {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" || len(b) < 5 {
			w.WriteHeader(400)
			return
		}
		service := ""
		if len(b) > 7 {
			service = string(b[7:])
		}
		body, status, message := answer(service)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		_, _ = w.Write(body)
		w.Header().Set("Grpc-Status", status)
		w.Header().Set("Grpc-Message", message)
	}))
	s.Config.ErrorLog = silent
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols.SetHTTP2(true)
	if config != nil {
		s.EnableHTTP2 = true
		s.TLS = config
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func serving(status byte) []byte { return []byte{0, 0, 0, 0, 2, 8, status} }

func TestGRPC(t *testing.T) {
	lbtest.CheckLeaks(t)
	answer := func(service string) ([]byte, string, string) {
		switch service {
		case "":
			return serving(1), "0", ""
		case "shop.Cart":
			return serving(2), "0", ""
		case "odd":
			return []byte{0, 0, 0, 0, 0}, "0", ""
		case "broken":
			return []byte{0, 0, 0, 0, 9, 8}, "0", ""
		case "fails":
			return nil, "14", "no \x1b[31m way"
		case "huge":
			return make([]byte, 1<<20), "0", ""
		}
		return nil, "5", "unknown service"
	}
	ca := lbtest.NewCA(t)
	plain := healthService(t, nil, answer)
	secure := healthService(t, &tls.Config{Certificates: []tls.Certificate{ca.Pair("back.test")}}, answer)
	file := lbtest.Files(t, "ca.pem", ca.PEM)
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{plain, "", good, "SERVING"},
		{plain, "service = 'shop.Cart'", bad, "NOT_SERVING"},
		{plain, "service = 'odd'", bad, "UNKNOWN"},
		{plain, "service = 'broken'", bad, "not a HealthCheckResponse"},
		{plain, "service = 'fails'", bad, "gRPC status"},
		{plain, "service = 'huge'", bad, ""},
		{plain, "service = 'none'", bad, "not known there"},
		{secure, "tls = 'yes'\nserver_name = 'back.test'\nca = '" + file + "'", good, "SERVING"},
		{secure, "tls = 'yes'\nca = '" + file + "'", bad, "TLS:"},
		{secure, "", bad, "answer:"},
	} {
		expectOutcome(t, tc.health, probeOnce(t, tc.backend, "kind = 'grpc'\n"+tc.health), tc.verdict, tc.said)
	}
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	expectOutcome(t, "HTTP/1", probeOnce(t, web.Listener.Addr().String(), "kind = 'grpc'"), bad, "answer:")
}

func TestAgent(t *testing.T) {
	lbtest.CheckLeaks(t)
	for line, want := range map[string]struct {
		verdict verdict
		weight  int
		said    string
		order   string
	}{
		"up\n":                      {good, -1, `says "up"`, ""},
		"UP":                        {good, -1, "", ""},
		"ready\r\n":                 {good, -1, "", "ready"},
		"up,75%\n":                  {good, 75, "", ""},
		"75%":                       {good, 75, "", ""},
		"200% maxconn:30 up\n":      {good, 200, "", ""},
		"0%\n":                      {good, 0, "0%", ""},
		"up 0%\n":                   {good, 0, "0%", ""},
		"drain\n":                   {good, -1, "drain", "drain"},
		"maint":                     {good, -1, "maint", "maint"},
		"down # disk full\nup\n":    {bad, -1, `down: "disk full"`, ""},
		"stopped#x":                 {bad, -1, "stopped", ""},
		"fail\tup\n":                {bad, -1, "fail", ""},
		"up # it's \x1b[31m fine\n": {good, -1, `\x1b`, ""},
		"\n":                        {bad, -1, "want a word", ""},
		"# nothing\n":               {bad, -1, "want a word", ""},
		"maybe\n":                   {bad, -1, `got "maybe"`, ""},
		"-5%\n":                     {bad, -1, "percentage", ""},
		"99999999999%\n":            {bad, -1, "percentage", ""},
		"drain, maint ready 20% up": {good, 20, "drain", "maint"},
		"ready drain down":          {bad, -1, "down", "drain"},
		"up up up ready,ready\n":    {good, -1, "", "ready"},
		"maxconn:3\n":               {bad, -1, "want a word", ""},
	} {
		o := judgeAgent(line)
		expectOutcome(t, line, o, want.verdict, want.said)
		if o.weight != want.weight || o.order != want.order {
			t.Errorf("%q: weight %d, order %q; want %d, %q", line, o.weight, o.order, want.weight, want.order)
		}
	}
	agent := lbtest.Serve(t, func(c *net.TCPConn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Fprintf(c, "50%% up # for %s\n", strings.TrimSpace(line))
	})
	o := probeOnce(t, "127.0.0.1:1", "kind = 'agent'\nport = "+portOf(agent)+"\nsend = 'web1\\n'")
	expectOutcome(t, "asked", o, good, "for web1")
}

func TestRedis(t *testing.T) {
	lbtest.CheckLeaks(t)
	server := func(password string) string {
		return lbtest.Serve(t, func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			known := password == ""
			for {
				var n int
				if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
					return
				}
				words := make([]string, n)
				for i := range words {
					var size int
					_, _ = fmt.Fscanf(r, "$%d\r\n", &size)
					b := make([]byte, size+2)
					_, _ = io.ReadFull(r, b)
					words[i] = string(b[:size])
				}
				switch {
				case words[0] == "AUTH" && words[n-1] == password:
					known = true
					_, _ = io.WriteString(c, "+OK\r\n")
				case words[0] == "AUTH":
					_, _ = io.WriteString(c, "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
				case !known:
					_, _ = io.WriteString(c, "-NOAUTH Authentication required.\r\n")
				default:
					_, _ = io.WriteString(c, "+PONG\r\n")
				}
			}
		})
	}
	open, locked := server(""), server("s3cret")
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{open, "", good, "PONG"},
		{locked, "", bad, "wants a password"},
		{locked, "password = 's3cret'", good, "PONG"},
		{locked, "user = 'u'\npassword = 's3cret'", good, "PONG"},
		{locked, "password = 'no'", bad, "WRONGPASS"},
		{says(t, false, "-LOADING Redis is loading the dataset in memory\r\n"), "", bad, "LOADING"},
		{says(t, false, "+PONGS\r\n"), "", bad, "want +PONG"},
		{says(t, false, strings.Repeat("x", 5000)), "", bad, "buffer full"},
	} {
		expectOutcome(t, tc.health, probeOnce(t, tc.backend, "kind = 'redis'\n"+tc.health), tc.verdict, tc.said)
	}
}

// pgMessage makes a message of PostgreSQL.
func pgMessage(kind byte, payload string) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)+4)), payload...))
}

func pgError(code, text string) string {
	return pgMessage('E', "SFATAL\x00C"+code+"\x00M"+text+"\x00\x00")
}

func pgAuth(step uint32, rest string) string {
	return pgMessage('R', string(binary.BigEndian.AppendUint32(nil, step))+rest)
}

func TestPostgres(t *testing.T) {
	lbtest.CheckLeaks(t)
	in := pgAuth(0, "") + pgMessage('S', "a\x00b\x00") + pgMessage('K', "12345678") + pgMessage('Z', "I")
	row := pgMessage('T', "") + pgMessage('D', "\x00\x01\x00\x00\x00\x01f") + pgMessage('C', "SELECT 1\x00") + pgMessage('Z', "I")
	for _, tc := range []struct {
		answer, health string
		verdict        verdict
		said           string
	}{
		{pgAuth(0, ""), "", good, "log in"},
		{pgAuth(10, "SCRAM-SHA-256\x00\x00"), "", good, "log in"},
		{pgError("28000", "no pg_hba.conf entry"), "", good, "answers"},
		{pgError("3D000", "database does not exist"), "", good, "answers"},
		{pgError("28000", "no pg_hba.conf entry"), "user = 'u'", bad, `"no pg_hba.conf entry" (28000)`},
		{pgError("57P03", "the database system is starting up"), "", bad, "starting up"},
		{pgError("53300", "sorry, too many clients already"), "", bad, "too many clients"},
		{pgMessage('E', "garbage"), "", bad, "not a message"},
		{in, "user = 'u'", good, "logged in"},
		{in, "user = 'u'\nquery = 'SELECT 1'", bad, "query:"},
		{in + row, "user = 'u'\nquery = 'SELECT 1'", good, "1 rows"},
		{in + row, "user = 'u'\nquery = 'SELECT 1'\nexpect = 'f'", good, `"f"`},
		{in + row, "user = 'u'\nquery = 'SELECT 1'\nexpect = 't'", bad, `got "f"; want "t"`},
		{in + pgMessage('Z', "I"), "user = 'u'\nquery = 'SELECT 1'\nexpect = 't'", bad, "no row"},
		{in + pgError("42P01", "no such relation"), "user = 'u'\nquery = 'SELECT 1'", bad, "no such relation"},
		{pgAuth(3, ""), "user = 'u'", bad, "wants a password"},
		{pgAuth(3, "") + in, "user = 'u'\npassword = 'x'", good, "logged in"},
		{pgAuth(5, "salt") + in, "user = 'u'\npassword = 'x'", good, "logged in"},
		{pgAuth(10, "SCRAM-SHA-256\x00\x00") + in, "user = 'u'\npassword = 'x'", bad, "did not prove"},
		{pgAuth(10, "SCRAM-SHA-256\x00\x00") + pgAuth(12, "v=AAAA") + in, "user = 'u'\npassword = 'x'", bad, "does not know the password"},
		{pgAuth(10, "OTHER\x00\x00"), "user = 'u'\npassword = 'x'", bad, "not supported"},
		{pgAuth(7, ""), "user = 'u'\npassword = 'x'", bad, "not supported (7)"},
		{strings.Repeat(pgMessage('N', "x"), 2000), "user = 'u'", bad, "too many messages"},
		{"R\x7f\xff\xff\xff", "", bad, "not a message"},
	} {
		o := probeOnce(t, says(t, false, tc.answer), "kind = 'postgres'\n"+tc.health)
		expectOutcome(t, fmt.Sprintf("%q %s", cut(tc.answer, 60), tc.health), o, tc.verdict, tc.said)
	}
	expectOutcome(t, "no TLS", probeOnce(t, says(t, false, "N"), "kind = 'postgres'\ntls = 'yes'"), bad, "the server has none")
}

// TestSCRAM is the example of RFC 7677, section 3. The user's name is in it there; PostgreSQL leaves it empty.
func TestSCRAM(t *testing.T) {
	s := &scram{password: "pencil", nonce: "rOprNGfwEbeRWgbNEkqO"}
	const challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	final, err := s.final(challenge)
	if err != nil || !strings.HasPrefix(final, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=") {
		t.Errorf("got %q, %v", final, err)
	}
	for _, wrong := range []string{"", "v=", "v=AAAA", "e=other-error", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="} {
		if s.verify(wrong) == nil {
			t.Errorf("%q proves that the server knows the password", wrong)
		}
	}
	for _, wrong := range []string{"", "r=x,s=AA==,i=1", "r=rOprNGfwEbeRWgbNEkqO,s=AA==,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
		"r=rOprNGfwEbeRWgbNEkqOx,s=AA==,i=0", "r=rOprNGfwEbeRWgbNEkqOx,s=AA==,i=1000000000", "r=rOprNGfwEbeRWgbNEkqOx,s=%,i=1"} {
		if _, err := s.final(wrong); !errors.Is(err, errSCRAM) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestMySQL(t *testing.T) {
	lbtest.CheckLeaks(t)
	greeting := string(mysqlPacket(0, append([]byte("\x0a8.4.2\x00"), make([]byte, 40)...)))
	packet := func(n byte, payload string) string { return string(mysqlPacket(n, []byte(payload))) }
	wrong := func(code uint16, text string) string {
		return "\xff" + string(binary.LittleEndian.AppendUint16(nil, code)) + "#28000" + text
	}
	server := func(answers ...string) string {
		return lbtest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, answers[0])
			for _, a := range answers[1:] {
				if _, _, err := readMySQL(c); err != nil {
					return
				}
				_, _ = io.WriteString(c, a)
			}
			_, _ = io.Copy(io.Discard, c)
		})
	}
	ok := packet(2, "\x00\x00\x00\x02\x00\x00\x00")
	for _, tc := range []struct {
		backend, health string
		verdict         verdict
		said            string
	}{
		{server(greeting, ok), "", good, "version 8.4.2"},
		{server(greeting, ok), "user = 'check'", good, "version 8.4.2"},
		{server(greeting, packet(2, wrong(1045, "Access denied"))), "", good, "version"},
		{server(greeting, packet(2, wrong(1045, "Access denied"))), "user = 'check'", bad, `error 1045, "Access denied"`},
		{server(greeting, packet(2, wrong(3159, "insecure transport"))), "", good, "version"},
		{server(greeting, packet(2, wrong(3159, "insecure transport"))), "user = 'check'", bad, "the server wants TLS"},
		{server(greeting, packet(2, "\xfecaching_sha2_password\x00salt"), packet(4, "\x00\x00\x00\x02\x00\x00\x00")), "", good, "version"},
		{server(packet(0, wrong(1040, "Too many connections"))), "", bad, "Too many connections"},
		{server(packet(0, "\xff\x69\x04Host is blocked")), "", bad, "error 1129"},
		{server(packet(0, "\x09old\x00")), "", bad, "protocol 9"},
		{server(packet(0, "\x0anever ends")), "", bad, "in the middle"},
		{server(packet(0, "")), "", bad, "empty"},
		{server("\xff\xff\xff\x00"), "", bad, "not a packet"},
		{server(greeting, packet(2, wrong(1053, "Server shutdown in progress"))), "", bad, "shutdown"},
	} {
		expectOutcome(t, tc.said, probeOnce(t, tc.backend, "kind = 'mysql'\n"+tc.health), tc.verdict, tc.said)
	}
}

// TestThousandBackends: a thousand backends, checked ten times a second each for a while, and no more descriptors than the
// lane is wide; at the end nothing is left.
func TestThousandBackends(t *testing.T) {
	lbtest.CheckLeaks(t)
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	lbtest.ServeOn(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	port := portOf(l.Addr().String())
	var text strings.Builder
	text.WriteString("[pools.p]\nhealth = {interval = '1s'}\nbackends = [\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "{address = '127.0.%d.%d:%s'},\n", i/250, i%250+1, port)
	}
	before := lbtest.FDs(t)
	p := New(Options{Log: slog.New(slog.DiscardHandler), Changed: func(x Transition) {
		if !x.Initial {
			t.Errorf("%+v", x)
		}
	}})
	defer p.Close()
	cfg := parse(t, text.String()+"]\n")
	p.Apply(cfg)
	lbtest.Eventually(t, "each was probed three times", func() bool {
		if n := lbtest.FDs(t) - before; n > 2*laneWidth[network]+100 { // both ends, and those that the backend has not closed yet
			t.Errorf("%d descriptors more", n)
		}
		for _, s := range p.Status() {
			if s.Good < 3 {
				return false
			}
		}
		return true
	})
}

// TestAnswersBeforeAsked: a server that speaks first is judged as others, and strangers write nothing into the process' log.
func TestAnswersBeforeAsked(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	backend := says(t, true, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	for range 300 {
		expectOutcome(t, "http", probeOnce(t, backend, "kind = 'http'\n"), good, "200")
	}
	if said.Len() > 0 {
		t.Errorf("the log has %q", said.String())
	}
}
