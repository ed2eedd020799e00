//go:build real

package real

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
	"awe4lb/internal/lbtest"
)

// dockerWorld is dockerd in an enclosure. Its containers outlive it (live-restore), so that a daemon that is down is not a
// backend that is down.
type dockerWorld struct {
	t      *testing.T
	e      enclosure
	daemon *process
	keeper *process // containerd, which keeps the containers
	socket string
	more   func(*discovery.DockerOptions)
}

const dockerNetwork = "backends"

func newDocker(t *testing.T, args ...string) *dockerWorld {
	t.Helper()
	w := &dockerWorld{t: t, e: newEnclosure(t)}
	dir := shortDir(t)
	w.socket = filepath.Join(dir, "docker.sock")
	keeper := filepath.Join(dir, "containerd.sock")
	config := filepath.Join(dir, "containerd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, "croot"), filepath.Join(dir, "cstate"), keeper), 0o600); err != nil {
		t.Fatal(err)
	}
	w.keeper = &process{t: t, log: filepath.Join(dir, "containerd.log"), argv: w.e.in("containerd", "--config", config)}
	w.daemon = &process{t: t, log: filepath.Join(dir, "log"), argv: w.e.in(append([]string{"dockerd", "--host", "unix://" + w.socket,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--live-restore", "--containerd", keeper}, args...)...)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.daemon.tail())
		}
		if w.daemon.cmd != nil {
			if ids := strings.Fields(w.docker("ps", "-aq")); len(ids) > 0 {
				w.docker(append([]string{"rm", "-f"}, ids...)...)
			}
		}
		w.daemon.stop(syscall.SIGTERM)
		w.keeper.stop(syscall.SIGTERM)
	})
	w.keeper.start()
	until(t, "containerd answers", 30*time.Second, func() bool { _, err := os.Stat(keeper); return err == nil })
	w.start()

	image := filepath.Join(dir, "image.tar")
	output(t, nil, "tar", "cf", image, "-C", filepath.Dir(named(t)), "named")
	w.docker("import", "--change", `ENTRYPOINT ["/named"]`, "--change", "EXPOSE 8080", image, "named:1")
	w.docker("network", "create", "--subnet", "10.78.0.0/24", dockerNetwork)
	return w
}

func (w *dockerWorld) docker(args ...string) string {
	w.t.Helper()
	return output(w.t, []string{"DOCKER_HOST=unix://" + w.socket, "DOCKER_CONFIG=" + filepath.Dir(w.socket)}, "docker", args...)
}

func (w *dockerWorld) start() {
	w.t.Helper()
	w.daemon.start()
	until(w.t, "dockerd answers", 30*time.Second, func() bool {
		_, ok := try([]string{"DOCKER_HOST=unix://" + w.socket}, "docker", "version")
		return ok
	})
}

func (w *dockerWorld) stop(s syscall.Signal) { w.daemon.stop(s) }

func (w *dockerWorld) source() discovery.Source {
	o := discovery.DockerOptions{Endpoint: "unix://" + w.socket, Labels: []string{"awe4lb.pool=web"}, Network: dockerNetwork, Resync: 2 * time.Second}
	if w.more != nil {
		w.more(&o)
	}
	s, err := discovery.NewDocker(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *dockerWorld) table() string {
	return fmt.Sprintf("kind = \"docker\"\nurl = \"unix://%s\"\nlabels = [\"awe4lb.pool=web\"]\nnetwork = %q\nresync = \"2s\"\n", w.socket, dockerNetwork)
}

func (w *dockerWorld) serve(*testing.T)                 {} // containers do
func (w *dockerWorld) within(argv ...string) []string   { return w.e.in(argv...) }
func (w *dockerWorld) dial(at string) (net.Conn, error) { return w.e.dial(at) }
func (w *dockerWorld) ends() (removed, changed bool)    { return true, true }

func (w *dockerWorld) add(n, weight int) string {
	w.t.Helper()
	ip := fmt.Sprintf("10.78.0.1%d", n)
	w.docker("run", "-d", "--name", fmt.Sprintf("w%d", n), "--network", dockerNetwork, "--ip", ip,
		"--label", "awe4lb.pool=web", "--label", fmt.Sprintf("awe4lb.weight=%d", weight), "named:1")
	return entry(ip+":8080", weight)
}

// change makes a new container: labels do not change.
func (w *dockerWorld) change(n, weight int) string {
	w.t.Helper()
	w.remove(n)
	return w.add(n, weight)
}

func (w *dockerWorld) remove(n int) {
	w.t.Helper()
	w.docker("rm", "-f", fmt.Sprintf("w%d", n))
}

func TestDocker(t *testing.T) {
	w := newDocker(t)
	s := tell(t, w)
	// What is none of ours changes nothing.
	w.docker("run", "-d", "--name", "stranger", "--network", dockerNetwork, "named:1")
	s.whole()
	s.happens("one is paused", func(now map[int]string) { w.docker("pause", "w2"); delete(now, 2) })
	s.happens("and goes on", func(now map[int]string) { w.docker("unpause", "w2"); now[2] = entry("10.78.0.12:8080", 7) })
	s.happens("one leaves the network", func(now map[int]string) { w.docker("network", "disconnect", dockerNetwork, "w2"); delete(now, 2) })
}

// TestDockerPublished: the ports of the host, by TCP with certificates, as gobetween does it.
func TestDockerPublished(t *testing.T) {
	ca := lbtest.NewCA(t)
	serverCert, serverKey := ca.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	clientCert, clientKey := ca.Issue(lbtest.Leaf{Names: []string{"lb"}})
	file := func(name string, pem []byte) string { return lbtest.Files(t, name, pem) }
	w := newDocker(t, "--host", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", file("ca.pem", ca.PEM),
		"--tlscert", file("s.pem", serverCert), "--tlskey", file("s.key", serverKey))
	tcp := "tcp://" + w.e.door(t, "127.0.0.1:2376")
	w.more = func(o *discovery.DockerOptions) {
		*o = discovery.DockerOptions{Endpoint: tcp, Labels: []string{"pool=web"}, Published: true, HostEnv: "HOST", Port: 8080, Resync: 2 * time.Second,
			TLS: discovery.HTTPTLS{CA: file("ca.pem", ca.PEM), Cert: file("c.pem", clientCert), Key: file("c.key", clientKey)}}
	}
	s := tell(t, listsOnly{w})
	s.happens("one on all addresses", func(now map[int]string) {
		w.docker("run", "-d", "--label", "pool=web", "-p", "8081:8080", "named:1")
		now[1] = entry("127.0.0.1:8081", 1)
	})
	s.happens("one on an address", func(now map[int]string) {
		w.docker("run", "-d", "--label", "pool=web", "-p", "10.77.0.1:8082:8080", "named:1")
		now[2] = entry("10.77.0.1:8082", 1)
	})
	s.happens("one that says its host", func(now map[int]string) {
		w.docker("run", "-d", "--label", "pool=web", "--env", "HOST=192.0.2.7", "-p", "8083:8080", "named:1")
		now[3] = entry("192.0.2.7:8083", 1)
	})
	s.happens("one on the host's network", func(now map[int]string) {
		w.docker("run", "-d", "--label", "pool=web", "--network", "host", "named:1")
		now[4] = entry("127.0.0.1:8080", 1)
	})
	if _, err := os.Stat(w.socket); err != nil {
		t.Error(err)
	}

	// Without a certificate that the daemon knows, nothing is told.
	o := discovery.DockerOptions{Endpoint: tcp, TLS: discovery.HTTPTLS{CA: file("ca.pem", ca.PEM)}}
	stranger, err := discovery.NewDocker(o)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := stranger.Fetch(t.Context()); err == nil {
		t.Errorf("a stranger got %v", list)
	}
}
