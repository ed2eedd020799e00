//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// postgresUser returns the ids of the user postgres: PostgreSQL refuses to run as root.
func postgresUser(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("%v: run `make deps`", err)
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// startPostgres makes a cluster and starts PostgreSQL on it, with fsync off. It listens on 127.0.0.1:port and on the unix
// socket dir/.s.PGSQL.port; whoever connects is let in.
func startPostgres(t *testing.T) (port int, dir string) {
	t.Helper()
	return startPostgresAs(t, "", nil)
}

// startPostgresAs is startPostgres with these lines at the head of pg_hba.conf, which says who is let in, and with these
// settings. CERT in a setting is the file that holds pair, a certificate and its key.
func startPostgresAs(t *testing.T, hba string, pair []byte, settings ...string) (port int, dir string) {
	t.Helper()
	needRoot(t, "PostgreSQL is started as the user postgres")
	uid, gid := postgresUser(t)
	as := func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	port, dir = lbtest.FreePort(t), openDir(t)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	made := launch(t, as, "initdb", "--auth", "trust", "--no-sync", "--no-locale", "--encoding", "UTF8", "-D", data)
	<-made.done
	if made.err != nil {
		t.Fatalf("initdb: %v", made.err)
	}
	everybody, err := os.ReadFile(filepath.Join(data, "pg_hba.conf"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, data, "pg_hba.conf", hba+"\n"+string(everybody))
	cert := filepath.Join(dir, "pair.pem")
	if err := errors.Join(os.WriteFile(cert, pair, 0o600), os.Chown(cert, uid, gid)); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", data, "-p", fmt.Sprint(port)}
	for _, s := range append(settings, "listen_addresses=127.0.0.1", "unix_socket_directories="+dir, "fsync=off", "full_page_writes=off") {
		args = append(args, "-c", strings.Replace(s, "CERT", cert, 1))
	}
	p := launch(t, as, "postgres", args...)
	t.Cleanup(func() { p.end(syscall.SIGINT) }) // SIGTERM would wait for clients
	p.waitFor("PostgreSQL is ready", func() bool { return p.out.has("database system is ready to accept connections") })
	return port, dir
}

func TestPostgres(t *testing.T) {
	pgPort, pgDir := startPostgres(t)
	// psql -h DIRECTORY -p PORT connects to DIRECTORY/.s.PGSQL.PORT, so that is what the frontend is called.
	dir := openDir(t)
	lb := start(t, fmt.Sprintf(`
[frontends.tcp]
bind = ["127.0.0.1:0"]
pool = "tcp"

[frontends.local]
bind = ["unix:%s/.s.PGSQL.5432"]
pool = "local"

[pools.tcp]
backends = [ { address = "127.0.0.1:%d" } ]

[pools.local]
backends = [ { address = "unix:%s/.s.PGSQL.%d" } ]
`, dir, pgPort, pgDir, pgPort))
	port := lb.port("tcp")
	const tcp, local = "TCP", "unix sockets"
	with := func(way string, args ...string) []string {
		to := []string{"-h", "127.0.0.1", "-p", port, "-U", "postgres"}
		if way == local {
			to = []string{"-h", dir, "-p", "5432", "-U", "postgres"}
		}
		return append(append(to, args...), "postgres")
	}

	run(t, "pgbench", with(tcp, "-i", "-q", "-s", "2")...)
	for _, way := range []string{tcp, local} {
		t.Run("psql over "+way, func(t *testing.T) {
			got := run(t, "psql", with(way, "-At", "-c", "select count(*), sum(aid) from pgbench_accounts")...)
			if got != "200000|20000100000\n" {
				t.Errorf("got %q", got)
			}
			// 20 MB of answer, and a failing command's exit code.
			got = run(t, "psql", with(way, "-At", "-c", "select repeat('0123456789', 2000000)")...)
			if got != strings.Repeat("0123456789", 2000000)+"\n" {
				t.Errorf("%d bytes that are not the 20 MB asked for", len(got))
			}
			if _, code := runWith(t, nil, "psql", with(way, "-At", "-c", "select 1/0")...); code != 1 {
				t.Errorf("1/0: exit code %d", code)
			}
		})
		t.Run("pgbench over "+way, func(t *testing.T) {
			pgbench(t, with(way, "-S", "-c", "16", "-j", "2", "-T", "3")...)
		})
		t.Run("pgbench over "+way+", a connection per transaction", func(t *testing.T) {
			pgbench(t, with(way, "-S", "-C", "-c", "16", "-j", "2", "-t", "20")...)
		})
	}
	for _, f := range lb.status().Frontends {
		if f.Accepted == 0 || f.Bytes.B2C < 20e6 {
			t.Errorf("frontend %s: %d sessions, %d bytes to clients", f.Name, f.Accepted, f.Bytes.B2C)
		}
	}
}

// pgbench runs pgbench and wants no transaction failed.
func pgbench(t *testing.T, args ...string) {
	t.Helper()
	out := run(t, "pgbench", args...)
	done := regexp.MustCompile(`number of transactions actually processed: (\d+)`).FindStringSubmatch(out)
	if done == nil || done[1] == "0" || !strings.Contains(out, "number of failed transactions: 0 (0.000%)") {
		t.Errorf("pgbench said:\n%s", out)
	}
	t.Log(regexp.MustCompile(`tps = .*`).FindString(out))
}
