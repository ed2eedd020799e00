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

// lxdWorld is LXD in an enclosure. Its instances outlive the daemon.
type lxdWorld struct {
	t      *testing.T
	e      enclosure
	dir    string // LXD_DIR
	daemon *process
	more   func(*discovery.LXDOptions)
}

func newLXD(t *testing.T) *lxdWorld {
	t.Helper()
	w := &lxdWorld{t: t, e: newEnclosure(t)}
	dir := shortDir(t)
	w.dir = filepath.Join(dir, "lxd")
	if err := os.Mkdir(w.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // instances run as other users
		t.Fatal(err)
	}
	w.daemon = &process{t: t, log: filepath.Join(dir, "log"), env: w.env(), argv: w.e.in("lxd", "--group", "root")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.daemon.tail())
		}
		if w.daemon.cmd != nil {
			if names := strings.Fields(w.lxc("list", "--format", "csv", "-c", "n")); len(names) > 0 {
				w.lxc(append([]string{"delete", "-f"}, names...)...)
			}
		}
		w.daemon.stop(syscall.SIGTERM)
	})
	w.start()
	w.lxc("storage", "create", "default", "dir")
	w.lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
	w.lxc("profile", "device", "add", "default", "eth0", "nic", "nictype=bridged", "parent=br0", "name=eth0")

	image := filepath.Join(dir, "image")
	for _, d := range []string{"dev", "proc", "sys", "etc", "sbin"} {
		if err := os.MkdirAll(filepath.Join(image, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	output(t, nil, "cp", named(t), filepath.Join(image, "rootfs/sbin/init"))
	if err := os.WriteFile(filepath.Join(image, "metadata.yaml"), []byte("architecture: x86_64\ncreation_date: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, nil, "tar", "czf", image+".tgz", "-C", image, "metadata.yaml", "rootfs")
	w.lxc("image", "import", image+".tgz", "--alias", "named")
	return w
}

func (w *lxdWorld) env() []string {
	return []string{"LXD_DIR=" + w.dir, "HOME=" + filepath.Dir(w.dir), "LXD_CONF=" + filepath.Dir(w.dir)}
}

func (w *lxdWorld) lxc(args ...string) string {
	w.t.Helper()
	return output(w.t, w.env(), "lxc", args...)
}

func (w *lxdWorld) start() {
	w.t.Helper()
	w.daemon.start()
	output(w.t, w.env(), "lxd", "waitready", "--timeout", "30")
}

func (w *lxdWorld) stop(s syscall.Signal) { w.daemon.stop(s) }

func (w *lxdWorld) source() discovery.Source {
	o := discovery.LXDOptions{URL: "unix://" + filepath.Join(w.dir, "unix.socket"), Key: "user.awe4lb.pool", Value: "web", Port: 8080, Resync: 2 * time.Second}
	if w.more != nil {
		w.more(&o)
	}
	s, err := discovery.NewLXD(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *lxdWorld) table() string {
	return fmt.Sprintf("kind = \"lxd\"\nurl = \"unix://%s\"\nconfig_key = \"user.awe4lb.pool\"\nconfig_value = \"web\"\nport = 8080\nresync = \"2s\"\n", filepath.Join(w.dir, "unix.socket"))
}

func (w *lxdWorld) serve(*testing.T)                 {} // instances do
func (w *lxdWorld) within(argv ...string) []string   { return w.e.in(argv...) }
func (w *lxdWorld) dial(at string) (net.Conn, error) { return w.e.dial(at) }
func (w *lxdWorld) ends() (removed, changed bool)    { return true, false }

func (w *lxdWorld) add(n, weight int) string {
	w.t.Helper()
	name, ip := fmt.Sprintf("w%d", n), fmt.Sprintf("10.77.0.1%d", n)
	w.lxc("init", "named", name, "-c", "user.awe4lb.pool=web", "-c", fmt.Sprintf("user.awe4lb.weight=%d", weight), "-c", "raw.lxc=lxc.net.0.ipv4.address="+ip+"/24")
	w.lxc("start", name)
	return entry(ip+":8080", weight)
}

func (w *lxdWorld) change(n, weight int) string {
	w.t.Helper()
	w.lxc("config", "set", fmt.Sprintf("w%d", n), fmt.Sprintf("user.awe4lb.weight=%d", weight))
	return entry(fmt.Sprintf("10.77.0.1%d:8080", n), weight)
}

func (w *lxdWorld) remove(n int) {
	w.t.Helper()
	w.lxc("delete", "-f", fmt.Sprintf("w%d", n))
}

func TestLXD(t *testing.T) {
	w := newLXD(t)
	s := tell(t, w)
	w.lxc("launch", "named", "stranger")
	s.whole()
	s.happens("one is paused", func(now map[int]string) { w.lxc("pause", "w2"); delete(now, 2) })
	s.happens("and goes on", func(now map[int]string) { w.lxc("start", "w2"); now[2] = entry("10.77.0.12:8080", 7) })
	s.happens("one is no longer meant", func(now map[int]string) { w.lxc("config", "unset", "w2", "user.awe4lb.pool"); delete(now, 2) })
}

// TestLXDRemote: by https, with a certificate that becomes trusted by the password, to a server known by its fingerprint.
func TestLXDRemote(t *testing.T) {
	w := newLXD(t)
	w.lxc("config", "set", "core.https_address", "127.0.0.1:8443")
	w.lxc("config", "set", "core.trust_password", "s3cret")
	door := "https://" + w.e.door(t, "127.0.0.1:8443")
	var fingerprint string
	for line := range strings.Lines(w.lxc("info")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "certificate_fingerprint: "); ok {
			fingerprint = v
		}
	}
	cert, key := lbtest.NewCA(t).Issue(lbtest.Leaf{Names: []string{"lb"}})
	files := discovery.HTTPTLS{Cert: lbtest.Files(t, "c.pem", cert), Key: lbtest.Files(t, "c.key", key)}
	w.more = func(o *discovery.LXDOptions) {
		o.URL, o.TLS, o.Fingerprint = door, files, fingerprint
	}

	fails := func(reason, want string) {
		t.Helper()
		_, err := w.source().Fetch(t.Context())
		if err == nil || discovery.ReasonOf(err) != reason || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v (%s); want %s: %s", err, discovery.ReasonOf(err), reason, want)
		}
	}
	fails(discovery.ReasonStatus, "status 403")
	trusted := w.more
	w.more = func(o *discovery.LXDOptions) { trusted(o); o.Password = discovery.Secret{Value: "wrong"} }
	fails(discovery.ReasonStatus, "the password was not taken")
	w.more = func(o *discovery.LXDOptions) { trusted(o); o.Fingerprint = strings.Repeat("ab", 32) }
	fails(discovery.ReasonRefused, "fingerprint")
	w.more = func(o *discovery.LXDOptions) { trusted(o); o.Password = discovery.Secret{Value: "s3cret"} }
	s := tell(t, listsOnly{w})
	s.happens("one comes", func(now map[int]string) { now[1] = w.add(1, 1) })
	s.outage("the server restarts", syscall.SIGTERM, func() {})
	s.happens("one changes", func(now map[int]string) { now[1] = w.change(1, 2) })
}
