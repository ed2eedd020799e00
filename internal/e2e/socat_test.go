//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// sha256sum answers only once it has read everything there is, so the client must say that it is done and still listen:
// half of the connection is closed before the other half is used.
func TestHalfCloseWithSocat(t *testing.T) {
	port := lbtest.FreePort(t)
	backend := launch(t, nil, "socat", fmt.Sprintf("TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork", port), "SYSTEM:sha256sum")
	backend.waitFor("socat listens", func() bool { return listens(local(port)) })
	unix := openDir(t) + "/backend"
	backend = launch(t, nil, "socat", "UNIX-LISTEN:"+unix+",fork", "SYSTEM:sha256sum")
	backend.waitFor("socat listens", func() bool { return listens("unix:" + unix) })

	front := openDir(t) + "/front"
	lb := start(t, fmt.Sprintf(`
[frontends.tcp]
bind = ["127.0.0.1:0"]
pool = "tcp"

[frontends.local]
bind = ["unix:%s"]
pool = "local"

[pools.tcp]
backends = [ { address = "127.0.0.1:%d" } ]

[pools.local]
backends = [ { address = "unix:%s" } ]
`, front, port, unix))
	big, err := os.ReadFile(sample(t, t.TempDir(), "big", 20<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"TCP:" + lb.address("tcp"), "UNIX:" + front} {
		for _, question := range [][]byte{[]byte("question"), nil, big} {
			t.Run(fmt.Sprintf("%d bytes to %s", len(question), strings.SplitN(to, ":", 2)[0]), func(t *testing.T) {
				// -t: how long socat waits for the answer once its own input has ended.
				answer, code := runWith(t, bytes.NewReader(question), "socat", "-t", "10", "-", to)
				if want := fmt.Sprintf("%x  -\n", sha256.Sum256(question)); answer != want || code != 0 {
					t.Errorf("got %q, exit code %d; want %q", answer, code, want)
				}
			})
		}
	}
}
