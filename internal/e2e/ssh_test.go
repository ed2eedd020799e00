//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// startSSHD starts an sshd that lets in whoever has the key it returns the path of. Keys are made for the test.
func startSSHD(t *testing.T) (address, key string) {
	t.Helper()
	if os.Getuid() == 0 {
		// Where sshd locks up its unprivileged half; /run is empty after each boot, and in a fresh container.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := openDir(t)
	for _, name := range []string{"host", "client"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name))
	}
	port := lbtest.FreePort(t)
	config := write(t, dir, "sshd_config", fmt.Sprintf(`
		ListenAddress 127.0.0.1:%d
		HostKey %[2]s/host
		AuthorizedKeysFile %[2]s/client.pub
		PidFile none
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		PermitRootLogin prohibit-password
		Subsystem sftp internal-sftp
		`, port, dir))
	s := launch(t, nil, find(t, "sshd"), "-D", "-e", "-f", config) // sshd wants to be called by its full path
	s.waitFor("sshd listens", func() bool { return s.out.has("Server listening") })
	return local(port), filepath.Join(dir, "client")
}

func TestSSH(t *testing.T) {
	address, key := startSSHD(t)
	lb := start(t, balance(address))
	port := lb.port("test")

	t.Run("the banner comes before the client says anything", func(t *testing.T) {
		began := time.Now()
		c, err := net.DialTimeout("tcp", lb.address("test"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(began.Add(10 * time.Second))
		banner, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(banner, "SSH-2.0-OpenSSH") {
			t.Fatalf("got %q, %v", banner, err)
		}
		// sshd itself takes some milliseconds to start its child.
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		} else {
			t.Logf("took %v", took)
		}
	})

	// The host's key, learned through the balancer, is then demanded.
	scanned := run(t, "ssh-keyscan", "-p", port, "-t", "ed25519", "127.0.0.1")
	public, err := os.ReadFile(filepath.Join(filepath.Dir(key), "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(scanned, strings.Fields(string(public))[1]) {
		t.Fatalf("ssh-keyscan: got %q, want the key %q", scanned, public)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	options := []string{"-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + write(t, t.TempDir(), "known_hosts", scanned)}
	ssh := append([]string{"-p", port, "-l", me.Username}, append(options, "127.0.0.1")...)

	t.Run("a command, its output and its exit status", func(t *testing.T) {
		out, code := runWith(t, nil, "ssh", append(ssh, "echo to stdout; exit 7")...)
		if out != "to stdout\n" || code != 7 {
			t.Errorf("got %q, exit status %d; want 7", out, code)
		}
	})
	t.Run("20 MB through a remote cat and back", func(t *testing.T) {
		data, err := os.ReadFile(sample(t, t.TempDir(), "data", 20<<20))
		if err != nil {
			t.Fatal(err)
		}
		back, code := runWith(t, bytes.NewReader(data), "ssh", append(ssh, "cat")...)
		if code != 0 || back != string(data) {
			t.Errorf("exit status %d, %d bytes that are not the %d sent", code, len(back), len(data))
		}
	})
	t.Run("20 MB by scp, there and back", func(t *testing.T) {
		dir := t.TempDir()
		up, there, back := sample(t, dir, "up", 20<<20), filepath.Join(dir, "there"), filepath.Join(dir, "back")
		scp := append([]string{"-q", "-P", port}, options...)
		remote := me.Username + "@127.0.0.1:" + there
		run(t, "scp", append(scp, up, remote)...)
		run(t, "scp", append(scp, remote, back)...)
		if want := sha256Of(t, up); sha256Of(t, there) != want || sha256Of(t, back) != want {
			t.Error("the copies are not the original")
		}
	})
}
