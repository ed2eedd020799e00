package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"awe4lb/acl"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// onlyTwo lets 127.0.0.2 in, and nobody else.
func onlyTwo(c *config.Config) {
	c.Frontends[0].Access = config.Access{Default: "deny", Rules: []*config.AccessRule{{Allow: prefixes("127.0.0.2/32")}}}
}

// dialFrom connects a client with an address of its own. It may be reset before it knows that it is connected.
func (r *rig) dialFrom(source string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", r.address())
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn), nil
}

// wasReset reports whether c ends by a reset instead of an answer.
func wasReset(t testing.TB, c net.Conn) bool {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	if err != nil && !isReset(err) {
		t.Fatal(err)
	}
	return err != nil
}

// served reports whether a client with that address reaches the backend, an echo, or is reset.
func (r *rig) served(source string) bool {
	r.t.Helper()
	c, err := r.dialFrom(source)
	if err == nil {
		defer c.Close()
		_, err = io.WriteString(c, "x")
	}
	if err != nil && !isReset(err) {
		r.t.Fatal(err)
	}
	return err == nil && !wasReset(r.t, c)
}

// TestAccess: the first rule that has the client decides, before anything else is done for it.
func TestAccess(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		onlyTwo(c)
		c.Frontends[0].MaxConnections = 1
	})
	if !r.served("127.0.0.2") || r.served("127.0.0.1") || r.served("127.0.0.3") {
		t.Error("the list does not decide")
	}
	for _, rec := range r.wantEnds(ClientEOF, Denied, Denied) {
		if rec.Reason == Denied && (rec.Backend != "" || rec.Frontend != "f" || !rec.Client.Addr().IsLoopback()) {
			t.Errorf("%+v", rec)
		}
	}
	f := r.e.Stats().Frontends["f"]
	if f.Accepted != 3 || f.Ended[Denied] != 2 || r.d.Snapshot().Frontends[0].Live.Active() != 0 {
		t.Errorf("%+v", f)
	}
}

// TestAccessOfProxied: behind a PROXY header the client it tells of counts, and not the proxy, unless that speaks for
// itself.
func TestAccessOfProxied(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		accepts("required")(c)
		c.Frontends[0].Access = config.Access{Default: "deny", Rules: []*config.AccessRule{{Deny: prefixes("192.0.2.66/32")}, {Allow: prefixes("192.0.2.0/24")}}}
	})
	through := func(header []byte) bool {
		c := r.dial()
		defer c.Close()
		say(t, c, string(header)+"x")
		return !wasReset(t, c)
	}
	if !through(header(1, "192.0.2.1:7")) || through(header(2, "192.0.2.66:7")) || through(header(2, "198.51.100.1:7")) {
		t.Error("the address in the header does not decide")
	}
	if through([]byte("PROXY UNKNOWN\r\n")) {
		t.Error("a proxy that speaks for itself was not a client as others")
	}
	for _, rec := range r.wantEnds(ClientEOF, Denied, Denied, Denied) {
		if rec.Client.String() == "192.0.2.66:7" && !rec.Proxy.Addr().IsLoopback() {
			t.Errorf("%+v", rec)
		}
	}
}

// TestAccessOfUnproxied: where a header is optional, who is no proxy is a client.
func TestAccessOfUnproxied(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		onlyTwo(c)
		c.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: "optional", Trusted: prefixes("10.0.0.0/8")}
	})
	if !r.served("127.0.0.2") || r.served("127.0.0.1") {
		t.Error("the list does not decide")
	}
	r.wantEnds(ClientEOF, Denied)
}

// TestAccessOfUnixSocket: the socket's mode says who comes there.
func TestAccessOfUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		onlyTwo(c)
		c.Frontends[0].Addresses = []config.Address{{Path: path}}
	})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "x")
	hear(t, c, "x")
}

// denying is a configuration that denies what is in the file at path.
func denying(path string) func(*config.Config) {
	return func(c *config.Config) {
		c.Frontends[0].Access = config.Access{Default: "allow", Rules: []*config.AccessRule{{DenyFile: path}}}
	}
}

func writeList(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAccessFile: a file's change counts for clients who come after it; sessions go on. One that cannot be used keeps a
// reload from changing anything.
func TestAccessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocked.txt")
	writeList(t, path, "127.0.0.3\n")
	backends := []string{lbtest.Echo(t)}
	r := newRig(t, backends, denying(path))
	if !r.served("127.0.0.2") || r.served("127.0.0.3") {
		t.Error("the file does not decide")
	}
	lives, err := r.dialFrom("127.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	say(t, lives, "x")
	hear(t, lives, "x")
	writeList(t, path, "127.0.0.2\n")
	lbtest.Eventually(t, "the file is in use", func() bool { r.e.lists.Look(); return !r.served("127.0.0.2") })
	if !r.served("127.0.0.3") {
		t.Error("the old file is still in use")
	}
	say(t, lives, "y")
	hear(t, lives, "y")

	writeList(t, path, "127.0.0.2\n127.0.0.0/7\n")
	var mistakes config.Errors
	if _, err := r.d.Apply(testConfig(backends, denying(path))); !errors.As(err, &mistakes) || mistakes[0].Line != 2 || mistakes[0].File != path {
		t.Errorf("got %v", err)
	}
	if errs := acl.Check(testConfig(backends, denying(path))); len(errs) != 1 || errs[0].Error() != mistakes[0].Error() {
		t.Errorf("check: %v", errs)
	}
	if r.served("127.0.0.2") || !r.served("127.0.0.3") {
		t.Error("a reload that was refused has changed something")
	}
	writeList(t, path, "127.0.0.4\n")
	r.apply(testConfig(backends, denying(path)))
	if !r.served("127.0.0.2") || r.served("127.0.0.4") {
		t.Error("the reload has not read the file")
	}
}

// TestAccessOfDatagrams: who is denied begins no flow, in each mode, and one who has a flow loses it when the list changes.
func TestAccessOfDatagrams(t *testing.T) {
	for _, mode := range []string{"flow", "datagram", "without replies"} {
		path := filepath.Join(t.TempDir(), "blocked.txt")
		writeList(t, path, "127.0.0.3\n")
		backends := []string{lbtest.EchoDatagrams(t)}
		r := newUDPRig(t, backends, func(c *config.Config) {
			denying(path)(c)
			if u := &c.Frontends[0].UDP; mode != "flow" {
				u.Mode, u.Replies = "datagram", mode == "datagram"
			}
		})
		c := r.client()
		c.say("one")
		if mode == "without replies" {
			lbtest.Eventually(t, "the datagram is passed on", func() bool { return r.e.Stats().Frontends["f"].Datagrams[ToBackend] == 1 })
		} else if got := c.hear(); got != "one" {
			t.Errorf("%s: %q", mode, got)
		}
		writeList(t, path, "127.0.0.1\n")
		lbtest.Eventually(t, "the file is in use", func() bool {
			r.e.lists.Look()
			return !guardOf(r.d.Snapshot().Frontends[0]).allows(c.address().Addr())
		})
		if mode != "without replies" {
			r.wantEnds(Denied)
			r.wantFlows(0)
		}
		c.say("two")
		c.say("three")
		r.wantDropped(ToBackend, DropDenied, 2)

		writeList(t, path, "")
		r.apply(testConfig(backends, asUDP(denying(path))))
		if got := c.ask("four"); got != "four" {
			t.Errorf("%s: %q", mode, got)
		}
		if mode == "flow" { // a reload that denies ends flows too
			r.apply(testConfig(backends, asUDP(func(c *config.Config) { c.Frontends[0].Access.Default = "deny" })))
			r.wantEnds(Denied, Denied)
		}
	}
}
