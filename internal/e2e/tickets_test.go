//go:build e2e

package e2e

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"testing"

	"awe4lb/internal/lbtest"
)

// TestTicketsOfTwoProcesses: processes with the same engine.ticket_secret resume each other's sessions, of the frontend of
// the same name; one with another secret does not, and makes a whole handshake instead.
func TestTicketsOfTwoProcesses(t *testing.T) {
	ca, backend := lbtest.NewCA(t), echo(t)
	pair := pairFile(t, ca, "front.test")
	secret := func() string {
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		return lbtest.Files(t, "secret", b)
	}
	process := func(secret string) *awe4lb {
		frontends := ""
		for _, name := range []string{"test", "other"} {
			frontends += fmt.Sprintf("[frontends.%s]\nbind = [\"127.0.0.1:0\"]\npool = \"test\"\ntls = { certificates = [ { cert = %q } ] }\n", name, pair)
		}
		return start(t, fmt.Sprintf("[engine]\nticket_secret = %q\n%s[pools.test]\nbackends = [ { address = %q } ]\n", secret, frontends, backend))
	}
	shared := secret()
	one, two, third := process(shared), process(shared), process(secret())

	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(t.TempDir(), "session")
		talk := func(what, want, address string, args ...string) {
			t.Helper()
			p := sClient(t, ca, "front.test", address, append(args, version)...)
			p.expect(want)
			p.exchange("salutations") // the ticket of TLS 1.3 comes before the answer
			p.quit()
			if t.Failed() {
				t.Fatal(what)
			}
		}
		talk("at first", "New, TLSv1.", one.address("test"), "-sess_out", session)
		talk("the same process", "Reused, TLSv1.", one.address("test"), "-sess_in", session)
		talk("the other process", "Reused, TLSv1.", two.address("test"), "-sess_in", session)
		talk("another secret", "New, TLSv1.", third.address("test"), "-sess_in", session)
		talk("another frontend", "New, TLSv1.", two.address("other"), "-sess_in", session)
		if err := two.reload(); err != nil {
			t.Error(err)
		}
		talk("after a reload", "Reused, TLSv1.", two.address("test"), "-sess_in", session)
	}
}
