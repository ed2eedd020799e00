//go:build real

package real

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// etcdWorld is etcd, of one or more members, each a process of its own. Changes are made by etcdctl, which speaks gRPC.
type etcdWorld struct {
	t       *testing.T
	members []*process
	urls    []string
	user    string // name:password, once etcd asks for it
	outside
}

const etcdPrefix = "/backends/web/"

func newEtcd(t *testing.T, n int) *etcdWorld {
	t.Helper()
	w := &etcdWorld{t: t}
	var cluster, peers []string
	for i := range n {
		w.urls = append(w.urls, "http://127.0.0.1:"+freePort(t))
		peers = append(peers, "http://127.0.0.1:"+freePort(t))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range n {
		dir := t.TempDir()
		p := &process{t: t, log: filepath.Join(dir, "log"), argv: []string{"etcd", "--name", fmt.Sprintf("m%d", i),
			"--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", w.urls[i], "--advertise-client-urls", w.urls[i],
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(cluster, ","),
			"--unsafe-no-fsync"}}
		w.members = append(w.members, p)
		p.start()
		t.Cleanup(func() {
			p.stop(syscall.SIGKILL)
			if t.Failed() {
				t.Log(p.tail())
			}
		})
	}
	w.ready()
	return w
}

// ctl runs etcdctl, again while etcd has no leader.
func (w *etcdWorld) ctl(args ...string) string {
	w.t.Helper()
	all := []string{"--endpoints", strings.Join(w.urls, ","), "--dial-timeout", "2s", "--command-timeout", "5s"}
	if w.user != "" {
		all = append(all, "--user", w.user)
	}
	var out string
	defer func() {
		if w.t.Failed() {
			w.t.Log(out)
		}
	}()
	until(w.t, "etcdctl "+args[0], 30*time.Second, func() (ok bool) {
		out, ok = try([]string{"ETCDCTL_API=3"}, "etcdctl", append(all, args...)...)
		return ok
	})
	return out
}

// ready waits until the members that run answer.
func (w *etcdWorld) ready() {
	w.t.Helper()
	for i, p := range w.members {
		if p.cmd != nil {
			until(w.t, "etcd answers", 30*time.Second, func() bool { return strings.Contains(health(w.urls[i]), `"health":"true"`) })
		}
	}
}

func (w *etcdWorld) options() discovery.EtcdOptions {
	o := discovery.EtcdOptions{Endpoints: w.urls, Prefix: etcdPrefix, Resync: 2 * time.Second}
	if name, password, ok := strings.Cut(w.user, ":"); ok {
		o.User, o.Password = name, discovery.Secret{Value: password}
	}
	return o
}

func (w *etcdWorld) source() discovery.Source {
	s, err := discovery.NewEtcd(w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *etcdWorld) table() string { return etcdTable(w.options()) }

func etcdTable(o discovery.EtcdOptions) string {
	table := fmt.Sprintf("kind = \"etcd\"\nendpoints = [\"%s\"]\nprefix = %q\nresync = \"2s\"\n", strings.Join(o.Endpoints, `", "`), o.Prefix)
	if o.User != "" {
		table += fmt.Sprintf("user = %q\npassword = %q\n", o.User, o.Password.Value)
	}
	return table
}

func (w *etcdWorld) add(n, weight int) string {
	w.t.Helper()
	address := w.at(n)
	value := fmt.Sprintf("%s weight=%d", address, weight)
	if n%2 == 0 {
		value = fmt.Sprintf(`{"address":%q,"weight":%d}`, address, weight)
	}
	w.ctl("put", fmt.Sprintf("%s%d", etcdPrefix, n), value)
	return entry(address, weight)
}

func (w *etcdWorld) change(n, weight int) string { return w.add(n, weight) }

func (w *etcdWorld) remove(n int) { w.ctl("del", fmt.Sprintf("%s%d", etcdPrefix, n)) }

func (w *etcdWorld) stop(s syscall.Signal) {
	for _, p := range w.members {
		p.stop(s)
	}
}

func (w *etcdWorld) start() {
	for _, p := range w.members {
		p.start()
	}
	w.ready()
}

// leader returns which member leads.
func (w *etcdWorld) leader() int {
	w.t.Helper()
	var of int
	until(w.t, "a leader", 20*time.Second, func() bool {
		var ok bool
		of, ok = leaderOf(w.urls)
		return ok
	})
	return of
}

// guarded makes etcd ask for a user, who may read what is under the prefix.
func (w *etcdWorld) guarded() {
	w.t.Helper()
	for _, args := range [][]string{
		{"user", "add", "root:r00tpass"}, {"user", "grant-role", "root", "root"},
		{"role", "add", "reader"}, {"role", "grant-permission", "--prefix=true", "reader", "read", etcdPrefix},
		{"user", "add", "lb:s3cret"}, {"user", "grant-role", "lb", "reader"}, {"auth", "enable"},
	} {
		w.ctl(args...)
	}
	w.user = "root:r00tpass"
}

func TestEtcd(t *testing.T) {
	w := newEtcd(t, 1)
	tell(t, w).whole()
}

// TestEtcdUser: a server that starts again has forgotten its tokens.
func TestEtcdUser(t *testing.T) {
	w := newEtcd(t, 1)
	w.guarded()
	s := tell(t, &readOnly{w})
	s.whole()
	if st := s.r.Status(); strings.Contains(fmt.Sprintf("%+v", st), "s3cret") {
		t.Error("the status has the password")
	}
}

// readOnly follows as the user who may only read.
type readOnly struct{ *etcdWorld }

func (w *readOnly) options() discovery.EtcdOptions {
	o := w.etcdWorld.options()
	o.User, o.Password = "lb", discovery.Secret{Value: "s3cret"}
	return o
}

func (w *readOnly) table() string { return etcdTable(w.options()) }

func (w *readOnly) source() discovery.Source {
	s, err := discovery.NewEtcd(w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestEtcdCluster: of three members one may go, the leader too, and the next is asked at once; without a majority there are no
// answers, and what was found stays.
func TestEtcdCluster(t *testing.T) {
	w := newEtcd(t, 3)
	s := tell(t, w)
	s.happens("two come", func(now map[int]string) { now[1] = w.add(1, 1); now[2] = w.add(2, 1) })
	for round := range 3 {
		l := w.leader()
		w.members[l].stop(syscall.SIGKILL)
		s.happens("a change without the leader", func(now map[int]string) { now[2] = w.change(2, round+2) })
		if round < 2 {
			w.members[l].start()
			w.ready()
		}
	}
	running := slices.IndexFunc(w.members, func(p *process) bool { return p.cmd != nil })
	w.members[running].stop(syscall.SIGKILL)
	s.state(discovery.Failing)
	s.stays("no majority", *down/4)
	for _, p := range w.members {
		if p.cmd == nil {
			p.start()
		}
	}
	w.ready()
	s.state(discovery.Fresh)
	s.happens("one goes", func(now map[int]string) { w.remove(1); delete(now, 1) })
}

// TestEtcdCompaction: a watch that has fallen behind what is kept starts anew.
func TestEtcdCompaction(t *testing.T) {
	w := newEtcd(t, 1)
	s := tell(t, w)
	s.happens("one comes", func(now map[int]string) { now[1] = w.add(1, 1) })
	for i := range 5 {
		w.members[0].signal(syscall.SIGSTOP)
		w.members[0].signal(syscall.SIGCONT)
		s.happens("one changes", func(now map[int]string) { now[1] = w.change(1, i+2) })
		w.ctl("compact", fmt.Sprint(i+3))
	}
	s.stays("quiet", 3*time.Second)
}
