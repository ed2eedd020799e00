package tlsbridge

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// program is a running openssl.
type program struct {
	t     testing.TB
	stdin io.WriteCloser

	mu  sync.Mutex
	out bytes.Buffer // both outputs
	at  int          // expected so far
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	if i := bytes.Index(p.out.Bytes()[p.at:], noise); i >= 0 {
		rest := bytes.Clone(p.out.Bytes()[p.at+i+len(noise):])
		p.out.Truncate(p.at + i)
		p.out.Write(rest)
	}
	return len(b), nil
}

// noise is what s_server says on key updates, sooner or later, in the middle of what it receives.
var noise = []byte("SSL_do_handshake -> 1\n")

// openssl starts openssl with args, killed at the end of the test at the latest.
func openssl(t testing.TB, args ...string) *program {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	p := &program{t: t}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = p, p
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

func (p *program) say(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, s); err != nil {
		p.t.Fatalf("%v; openssl says:\n%s", err, p.said())
	}
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// expect waits for s in the output, after what was expected before.
func (p *program) expect(s string) {
	p.t.Helper()
	for end := time.Now().Add(6 * time.Second); !p.passed(s); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("no %q; openssl says:\n%s", s, p.said())
		}
	}
}

// passed reports whether s is in the output, and makes what follows it the rest to be expected.
func (p *program) passed(s string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := bytes.Index(p.out.Bytes()[p.at:], []byte(s))
	if i < 0 {
		return false
	}
	p.at += i + len(s)
	return true
}

// TestOpenSSLClient: terminate TLS for s_client, in TLS 1.2 and 1.3, with the usual groups and signatures, in large and
// small reads, with key updates in the middle of it.
func TestOpenSSLClient(t *testing.T) {
	ca := lbtest.NewCA(t)
	file := lbtest.Files(t, "ca.pem", ca.PEM)
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}}),
		issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}, Key: lbtest.RSAKey(t)})))
	config, err := (&ServerOptions{Certificates: certs, Protocol: Protocol{ALPN: []string{"h2"}}}).Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, pull := range []int{0, 1} {
		for _, args := range []string{"-tls1_3", "-tls1_2", "-tls1_3 -groups P-384", "-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305",
			"-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA", "-tls1_3 -sigalgs rsa_pss_rsae_sha256", "-tls1_3 -max_send_frag 512 -alpn h2"} {
			t.Run(args, func(t *testing.T) {
				r := newRig(t, lbtest.Echo(t), rigOptions{server: config, pull: pull})
				p := openssl(t, strings.Fields("s_client -verify_return_error -servername a.test -CAfile "+file+" -connect "+r.address+" "+args)...)
				p.expect("Verify return code: 0 (ok)")
				p.say("salutations\n")
				p.expect("salutations")
				if strings.Contains(args, "tls1_3") {
					for _, command := range []string{"k\n", "K\n", "K\n", "k\n"} {
						p.say(command)
						p.expect("KEYUPDATE")
						p.say("more\n")
						p.expect("more")
					}
				}
				long := strings.Repeat("0123456789", 1000) + "end of it\n"
				p.say(long)
				p.expect("end of it")
				p.say("Q\n")
				if why := r.wantEnds(); why != "eof" {
					t.Errorf("ended by %q", why)
				}
			})
		}
	}
}

// TestOpenSSLRenegotiation: a client that wants to renegotiate is refused, with an alert.
func TestOpenSSLRenegotiation(t *testing.T) {
	ca := lbtest.NewCA(t)
	r := newRig(t, lbtest.Echo(t), rigOptions{server: serverConfig(ca, "a.test")})
	p := openssl(t, "s_client", "-tls1_2", "-servername", "a.test", "-connect", r.address)
	p.say("salutations\n")
	p.expect("salutations")
	p.say("R\n")
	p.expect("RENEGOTIATING")
	p.expect("alert unexpected message")
	if why := r.wantEnds(); !strings.Contains(why, "unexpected handshake message") {
		t.Errorf("ended by %q", why)
	}
}

// TestOpenSSLRefused: old versions get protocol_version.
func TestOpenSSLRefused(t *testing.T) {
	ca := lbtest.NewCA(t)
	r := newRig(t, lbtest.Echo(t), rigOptions{server: serverConfig(ca, "a.test")})
	for _, version := range []string{"-tls1", "-tls1_1"} {
		p := openssl(t, "s_client", version, "-cipher", "DEFAULT@SECLEVEL=0", "-servername", "a.test", "-connect", r.address)
		p.expect("alert protocol version")
		if why := r.wantEnds(); !strings.Contains(why, "unsupported versions") {
			t.Errorf("ended by %q", why)
		}
	}
}

// TestOpenSSLResumes: s_client comes back with its ticket, to another configuration with the same keys.
func TestOpenSSLResumes(t *testing.T) {
	ca := lbtest.NewCA(t)
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	tickets, err := NewTickets(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var rigs []*rig
	for range 2 {
		r, config := rigFor(t, ServerOptions{Certificates: certs})
		tickets.Apply(config, "f", time.Now())
		rigs = append(rigs, r)
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := lbtest.Files(t, "session.pem")
		for i, r := range rigs {
			args := []string{"s_client", version, "-servername", "a.test", "-connect", r.address}
			want := "New, TLSv1."
			if i == 0 {
				args = append(args, "-sess_out", session)
			} else {
				args = append(args, "-sess_in", session)
				want = "Reused, TLSv1."
			}
			p := openssl(t, args...)
			p.expect(want)
			p.say("salutations\n")
			p.expect("salutations")
			p.say("Q\n")
			r.wantEnds()
		}
	}
}

// opensslServer starts s_server with args and returns it and its address.
func opensslServer(t testing.TB, ca *lbtest.CA, args ...string) (*program, string) {
	t.Helper()
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"b.test"}})
	p := openssl(t, append([]string{"s_server", "-cert", lbtest.Files(t, "b.pem", cert, key), "-CAfile",
		lbtest.Files(t, "ca.pem", ca.PEM), "-accept", "127.0.0.1:0"}, args...)...)
	p.expect("ACCEPT ")
	rest := p.said()[p.at:]
	address, _, _ := strings.Cut(rest, "\n")
	return p, strings.TrimSpace(address)
}

// TestOpenSSLServer: originate TLS to s_server, with a client certificate, key updates of its own, and an end
// without close_notify.
func TestOpenSSLServer(t *testing.T) {
	ca := lbtest.NewCA(t)
	mine := issue(t, ca, lbtest.Leaf{Names: []string{"balancer"}})
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		for _, pull := range []int{0, 1} {
			t.Run(version, func(t *testing.T) {
				p, address := opensslServer(t, ca, version, "-Verify", "1", "-verify_return_error")
				client, err := (&ClientOptions{CA: ca.PEM, ServerName: "b.test", Certificate: mine}).Build()
				if err != nil {
					t.Fatal(err)
				}
				r := newRig(t, address, rigOptions{client: client.Config(""), pull: pull})
				c := r.dial()
				say := func(s string) {
					t.Helper()
					if _, err := io.WriteString(c, s); err != nil {
						t.Fatal(err)
					}
					p.expect(strings.TrimSpace(s))
				}
				hear := func(s string) {
					t.Helper()
					b := make([]byte, len(s))
					if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
						t.Fatalf("got %q, %v; want %q", b, err, s)
					}
				}
				say("to the server\n")
				p.say("to the client\n")
				hear("to the client\n")
				if version == "-tls1_3" {
					for _, command := range []string{"k\n", "K\n"} {
						p.say(command)
						time.Sleep(100 * time.Millisecond) // read together, they would be one command
						p.say("after " + command)
						hear("after " + command)
						say("answer to " + command)
					}
				}
				p.say("Q\n") // it closes the socket without close_notify: cut short, for all we know
				if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%d %v", n, err)
				}
				if why := r.wantEnds(); why != ErrTruncated.Error() {
					t.Errorf("ended by %q", why)
				}
			})
		}
	}
}

// TestOpenSSLServerRenegotiates: a backend that wants to renegotiate is refused.
func TestOpenSSLServerRenegotiates(t *testing.T) {
	ca := lbtest.NewCA(t)
	p, address := opensslServer(t, ca, "-tls1_2")
	r := newRig(t, address, rigOptions{client: clientConfig(ca, "b.test")})
	c := r.dial()
	_, _ = c.Write([]byte("to the server\n"))
	p.expect("to the server")
	p.say("r\n")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v; want a reset", err)
	}
	if why := r.wantEnds(); !strings.Contains(why, "renegotiat") {
		t.Errorf("ended by %q", why)
	}
}

// TestKeyUpdateFlood: a peer that asks for new keys again and again is cut, with data in between or without.
func TestKeyUpdateFlood(t *testing.T) {
	ca := lbtest.NewCA(t)
	for between, want := range map[string]string{"": "non-advancing", "data\n": errAsides.Error()} {
		r := newRig(t, lbtest.Silent(t), rigOptions{server: serverConfig(ca, "a.test")})
		p := openssl(t, "s_client", "-tls1_3", "-servername", "a.test", "-connect", r.address)
		p.expect("Verify return code")
		for range 2 * freeAsides {
			if _, err := io.WriteString(p.stdin, "K\n"); err != nil {
				break
			}
			time.Sleep(3 * time.Millisecond) // read together, they would be one command
			if between != "" {
				_, _ = io.WriteString(p.stdin, between)
				time.Sleep(3 * time.Millisecond)
			}
		}
		if why := r.wantEnds(); !strings.Contains(why, want) {
			t.Errorf("ended by %q, want %q", why, want)
		}
	}
}
