//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"awe4lb/internal/lbtest"
)

// talk is a program that is talked to over its standard input, while what it says is read.
type talk struct {
	*program
	stdin *os.File
	at    int // how far its output was read
}

// startTalk starts one.
func startTalk(t *testing.T, name string, args ...string) *talk {
	t.Helper()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	p := &talk{stdin: ours}
	p.program = launch(t, func(cmd *exec.Cmd) { cmd.Stdin = theirs }, name, args...)
	t.Cleanup(func() { ours.Close() })
	return p
}

// sClient starts openssl s_client, which trusts ca and asks for name, towards address. Lines that it is told are sent, but
// for commands: Q ends it, R renegotiates, K and k change the keys, of both ends or of its own.
func sClient(t *testing.T, ca *lbtest.CA, name, address string, args ...string) *talk {
	t.Helper()
	return startTalk(t, "openssl", append([]string{"s_client", "-verify_return_error", "-CAfile", lbtest.Files(t, "ca.pem", ca.PEM),
		"-servername", name, "-verify_hostname", name, "-connect", address}, args...)...)
}

func (p *talk) say(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, s); err != nil {
		p.t.Fatalf("%s was told %q: %v", p.cmd.Path, s, err)
	}
}

// expect waits until it says s, after what was expected before.
func (p *talk) expect(s string) {
	p.t.Helper()
	lbtest.EventuallyIn(p.t, 10*time.Second, fmt.Sprintf("%s says %q", p.cmd.Args[:2], s), func() bool {
		i := strings.Index(p.out.String()[p.at:], s)
		if i >= 0 {
			p.at += i + len(s)
		}
		return i >= 0
	})
}

// order says a command, and waits until it was read: openssl looks for one in the first byte of what it reads at once.
func (p *talk) order(command string) {
	p.t.Helper()
	p.say(command + "\n")
	lbtest.Eventually(p.t, fmt.Sprintf("%s reads the command %q", p.cmd.Args[:2], command), func() bool {
		left, err := unix.IoctlGetInt(int(p.stdin.Fd()), unix.TIOCINQ)
		return err == nil && left == 0
	})
}

// exchange says a line, and waits for it to come back from an echo.
func (p *talk) exchange(line string) {
	p.t.Helper()
	p.say(line + "\n")
	p.expect(line)
}

// quit has s_client or s_server go.
func (p *talk) quit() {
	p.t.Helper()
	p.order("Q")
	lbtest.EventuallyIn(p.t, 10*time.Second, "openssl has ended", p.ended)
}

// startLogged is start with the access log, which is returned.
func startLogged(t *testing.T, config string) (*awe4lb, *jsonLog) {
	t.Helper()
	sessions := new(jsonLog)
	lb := startAs(t, "[log.access]\noutput = \"stdout\"\n"+config, func(cmd *exec.Cmd) { cmd.Stdout = sessions })
	return lb, sessions
}

// wantEnding waits for the end of the session number n, from 1, and wants it to be for reason, with an error that
// contains detail.
func wantEnding(t *testing.T, sessions *jsonLog, n int, reason, detail string) {
	t.Helper()
	lbtest.Eventually(t, fmt.Sprintf("session %d has ended", n), func() bool { return len(sessions.all()) >= n })
	if r := sessions.all()[n-1]; r.text("reason") != reason || !strings.Contains(r.text("error"), detail) {
		t.Errorf("session %d: %v; want the reason %s and an error with %q", n, r, reason, detail)
	}
}

// pairFile makes a certificate for names, with its key, and returns the file that holds both.
func pairFile(t *testing.T, ca *lbtest.CA, names ...string) string {
	t.Helper()
	cert, key := ca.Issue(lbtest.Leaf{Names: names})
	return lbtest.Files(t, names[0]+".pem", cert, key)
}

// TestOpenSSLClient has s_client talk to an echo behind a frontend that terminates TLS, with an ECDSA certificate and an
// RSA one.
func TestOpenSSLClient(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"front.test"}, Key: lbtest.RSAKey(t)})
	lb, sessions := startLogged(t, fmt.Sprintf(`
[engine]
shards = 4

[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"

[frontends.test.tls]
certificates = [ { cert = %q }, { cert = %q } ]
alpn = ["chat/2", "chat/1"]

[pools.test]
backends = [ { address = %q } ]
`, pairFile(t, ca, "front.test"), lbtest.Files(t, "rsa.pem", cert, key), echo(t)))
	client := func(t *testing.T, args string) *talk {
		t.Helper()
		return sClient(t, ca, "front.test", lb.address("test"), strings.Fields(args)...)
	}
	ended := 0
	wantEnding := func(t *testing.T, reason, detail string) {
		t.Helper()
		ended++
		wantEnding(t, sessions, ended, reason, detail)
	}

	for args, said := range map[string][]string{
		"-tls1_3":                    {"New, TLSv1.3", "No ALPN negotiated"},
		"-tls1_2":                    {"Peer signature type: ECDSA", "New, TLSv1.2"},
		"-tls1_3 -alpn chat/1":       {"ALPN protocol: chat/1"},
		"-tls1_2 -alpn chat/1,other": {"ALPN protocol: chat/1"},
		"-tls1_3 -alpn chat/1,chat/2 -sigalgs rsa_pss_rsae_sha256":                     {"Peer signature type: RSA-PSS", "ALPN protocol: chat/2"},
		"-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305":                                  {"Peer signature type: RSA", "Cipher is ECDHE-RSA-CHACHA20-POLY1305"},
		"-tls1_3 -groups P-521:P-384 -max_send_frag 512":                               {"Server Temp Key: ECDH, secp"},
		"-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384 -no_ticket -record_padding 4096": {"Cipher is TLS_AES_256_GCM_SHA384"},
	} {
		t.Run(args, func(t *testing.T) {
			p := client(t, args)
			for _, s := range said {
				p.expect(s)
			}
			p.expect("Verify return code: 0 (ok)")
			p.exchange("salutations")
			if strings.HasPrefix(args, "-tls1_3") {
				for _, command := range []string{"K", "k", "K"} {
					p.order(command)
					p.expect("KEYUPDATE")
					p.exchange("with other keys")
				}
			}
			p.exchange(strings.Repeat("0123456789", 1500) + "end of it") // s_client reads 16 kB at a time
			p.quit()
			wantEnding(t, "client_eof", "")
		})
	}

	// A shard that knows a session is a matter of chance; all have the same keys.
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run("a session resumed on any shard, "+version, func(t *testing.T) {
			session := filepath.Join(t.TempDir(), "session")
			args := version + " -sess_out " + session
			for i := range 9 {
				p := client(t, args)
				p.expect([]string{"New, TLSv1.", "Reused, TLSv1."}[min(i, 1)])
				p.exchange("salutations") // the ticket of TLS 1.3 comes before the answer
				p.quit()
				wantEnding(t, "client_eof", "")
				args = version + " -sess_in " + session
			}
		})
	}

	for name, test := range map[string]struct{ args, order, alert, reason, detail string }{
		"renegotiation": {"-tls1_2", "R", "alert unexpected message", "client_tls", "unexpected handshake message"},
		"TLS 1.0":       {"-tls1 -cipher DEFAULT@SECLEVEL=0", "", "alert protocol version", "handshake_failed", "unsupported versions"},
		"TLS 1.1":       {"-tls1_1 -cipher DEFAULT@SECLEVEL=0", "", "alert protocol version", "handshake_failed", "unsupported versions"},
		"no forward secrecy": {"-tls1_2 -cipher AES128-GCM-SHA256:AES256-SHA", "", "alert handshake failure", "handshake_failed",
			"no cipher suite supported"},
		"another protocol": {"-tls1_3 -alpn mail", "", "alert no application protocol", "handshake_failed", "unsupported application protocols"},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			p := client(t, test.args)
			if test.order != "" {
				p.exchange("salutations")
				p.order(test.order)
			}
			p.expect(test.alert)
			wantEnding(t, test.reason, test.detail)
			p.stdin.Close()
		})
	}
}

// TestOpenSSLServer originates TLS to s_server, which wants a certificate.
func TestOpenSSLServer(t *testing.T) {
	ca := lbtest.NewCA(t)
	server := func(t *testing.T, args ...string) (*talk, string) {
		t.Helper()
		p := startTalk(t, "openssl", append([]string{"s_server", "-accept", "127.0.0.1:0", "-cert", pairFile(t, ca, "backend.test"),
			"-Verify", "1", "-verify_return_error", "-CAfile", lbtest.Files(t, "ca.pem", ca.PEM)}, args...)...)
		p.expect("ACCEPT 127.0.0.1:")
		lbtest.Eventually(t, "its port", func() bool { return strings.Contains(p.out.String()[p.at:], "\n") })
		port, _, _ := strings.Cut(p.out.String()[p.at:], "\n")
		return p, "127.0.0.1:" + port
	}
	// The frontend "test" is for people with the right certificates; "untrusting" trusts another CA than the backend's, and
	// "untrusted" has no certificate to show.
	balancer := func(t *testing.T, backend string) (*awe4lb, *jsonLog) {
		t.Helper()
		frontends := ""
		for _, name := range []string{"test", "untrusting", "untrusted"} {
			trusted, mine := ca, fmt.Sprintf("cert = %q", pairFile(t, ca, "balancer"))
			if name == "untrusting" {
				trusted = lbtest.NewCA(t)
			}
			if name == "untrusted" {
				mine = ""
			}
			frontends += fmt.Sprintf(`
[frontends.%[1]s]
bind = ["127.0.0.1:0"]
pool = %[1]q

[pools.%[1]s]
backends = [ { address = %[2]q } ]

[pools.%[1]s.tls]
server_name = "backend.test"
ca = %[3]q
%[4]s
`, name, backend, lbtest.Files(t, "ca.pem", trusted.PEM), mine)
		}
		return startLogged(t, frontends)
	}

	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run("a talk, "+version, func(t *testing.T) {
			p, address := server(t, version)
			lb, sessions := balancer(t, address)
			c, err := net.Dial("tcp", lb.address("test"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			answer := func(s string) {
				t.Helper()
				p.say(s)
				got := make([]byte, len(s))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != s {
					t.Fatalf("got %q, %v; want %q", got, err, s)
				}
			}
			p.expect("subject=CN = balancer")
			fmt.Fprint(c, "question\n")
			p.expect("question")
			answer("answer\n")
			if version == "-tls1_3" {
				for _, command := range []string{"k", "K"} {
					p.order(command)
					answer("with other keys\n")
				}
				fmt.Fprint(c, "and back\n")
				p.expect("and back")
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
				t.Errorf("at the end: %q, %v", rest, err)
			}
			wantEnding(t, sessions, 1, "client_eof", "")
		})

		t.Run("curl, "+version, func(t *testing.T) {
			_, address := server(t, version, "-www")
			lb, sessions := balancer(t, address)
			page := run(t, "curl", "--silent", "--show-error", "--fail", "--max-time", "10", "http://"+lb.address("test")+"/")
			if want := strings.Replace(version[1:], "tls1_", "New, TLSv1.", 1); !strings.Contains(page, want) || !strings.Contains(page, "Subject: CN=balancer") {
				t.Errorf("no %q, or no certificate of ours, in:\n%s", want, page)
			}
			wantEnding(t, sessions, 1, "backend_eof", "")
		})
	}

	t.Run("refused", func(t *testing.T) {
		_, address := server(t, "-tls1_2", "-www")
		lb, sessions := balancer(t, address)
		for i, test := range []struct{ frontend, detail string }{
			{"untrusting", "certificate signed by unknown authority"}, {"untrusted", "remote error: tls: handshake failure"},
		} {
			if _, code := runWith(t, nil, "curl", "--silent", "--max-time", "10", "http://"+lb.address(test.frontend)+"/"); code != 56 {
				t.Errorf("%s: curl ended with %d, want 56: its connection was reset", test.frontend, code)
			}
			wantEnding(t, sessions, i+1, "connect_tls", test.detail)
		}
		if lines := lb.log.find("TLS handshake with a backend failed"); len(lines) == 0 || lines[0].text("backend") != address {
			t.Errorf("the log says %v", lines)
		}
	})
}
