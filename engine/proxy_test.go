package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/engine/proxyproto"
	"awe4lb/internal/lbtest"
)

var everybody = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// accepts makes the frontend take headers of the test's clients.
func accepts(how string) func(*config.Config) {
	return func(c *config.Config) {
		c.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: how, Trusted: everybody}
	}
}

// header returns a header of a client at source.
func header(version int, source string) []byte {
	c := &proxyproto.Client{Source: netip.MustParseAddrPort(source), Dest: netip.MustParseAddrPort("192.0.2.2:443")}
	if version == 1 {
		return proxyproto.Append1(nil, c)
	}
	c.UniqueID, c.CRC32C = []byte("told"), true
	return proxyproto.Append2(nil, c)
}

// TestProxyAccepted: the address in a header is the client's, whatever pieces it comes in, with data behind it or none.
func TestProxyAccepted(t *testing.T) {
	for _, how := range []string{"optional", "required"} {
		for version, source := range map[int]string{1: "198.51.100.7:1234", 2: "[2001:db8::7]:1234"} {
			for _, in1 := range []bool{false, true} {
				r := newRig(t, []string{lbtest.Echo(t)}, accepts(how))
				c := r.dial()
				_ = c.SetNoDelay(true)
				first := append(header(version, source), "hello"...)
				if in1 {
					_, _ = c.Write(first)
				} else {
					say(t, pieces{c}, string(first))
				}
				hear(t, c, "hello")
				_ = c.CloseWrite()
				hearEnd(t, c, "")
				rec := r.wantEnds(ClientEOF)[0]
				if rec.Client.String() != source || rec.Proxy != c.LocalAddr().(*net.TCPAddr).AddrPort() || rec.C2B != 5 || version == 2 && rec.ID != "told" {
					t.Errorf("%+v", rec)
				}
			}
		}
	}
}

// TestProxyServerFirst: a backend that speaks first is not kept waiting for the client.
func TestProxyServerFirst(t *testing.T) {
	backend := lbtest.Serve(t, func(c *net.TCPConn) { say(t, c, "220 ready") })
	r := newRig(t, []string{backend}, accepts("required"))
	c := r.dial()
	_, _ = c.Write(header(2, "198.51.100.7:1234"))
	hearEnd(t, c, "220 ready")
	t.Run("nothing said", func(t *testing.T) {
		r := newRig(t, []string{backend}, func(c *config.Config) {
			accepts("optional")(c)
			c.Frontends[0].HelloTimeout = 200 * time.Millisecond
		})
		hearEnd(t, r.dial(), "220 ready")
	})
}

// TestProxyOwn: a proxy that speaks for itself is its own client.
func TestProxyOwn(t *testing.T) {
	for name, h := range map[string]string{
		"LOCAL": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "UNKNOWN": "PROXY UNKNOWN\r\n", "UNSPEC": "\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, []string{lbtest.Echo(t)}, accepts("required"))
			c := r.dial()
			say(t, c, h+"hello")
			hear(t, c, "hello")
			_ = c.CloseWrite()
			hearEnd(t, c, "")
			if rec := r.wantEnds(ClientEOF)[0]; rec.Client != c.LocalAddr().(*net.TCPAddr).AddrPort() || rec.Proxy.IsValid() {
				t.Errorf("%+v", rec)
			}
		})
	}
}

// TestProxyRefused: who may not tell, and what is not well told, reaches no backend.
func TestProxyRefused(t *testing.T) {
	for name, c := range map[string]struct {
		how    string
		say    string
		reason Reason
	}{
		"none where required": {"required", "GET / HTTP/1.1\r\n", BadProxy},
		"malformed":           {"optional", "PROXY TCP4 1.2.3.4\r\n", BadProxy},
		"a bad checksum":      {"optional", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x07\x03\x00\x04\x00\x00\x00\x00", BadProxy},
		"half of it":          {"required", "PROXY TCP4 1.2.3.4 ", HelloTimeout},
		"nothing":             {"required", "", HelloTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			backend := lbtest.Serve(t, func(*net.TCPConn) { t.Error("the backend was connected") })
			r := newRig(t, []string{backend}, func(cfg *config.Config) {
				accepts(c.how)(cfg)
				cfg.Frontends[0].HelloTimeout = 300 * time.Millisecond
			})
			conn := r.dial()
			say(t, conn, c.say)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client heard %v", err)
			}
			r.wantEnds(c.reason)
		})
	}
	stranger := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	t.Run("untrusted", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
			c.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: "required", Trusted: stranger}
		})
		c, err := net.Dial("tcp", r.address())
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client heard %v", err)
		}
		r.wantEnds(ProxyUntrusted)
	})
	t.Run("untrusted, optional", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
			c.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: "optional", Trusted: stranger}
		})
		c := r.dial()
		say(t, c, string(header(1, "198.51.100.7:1"))) // no more than bytes
		hear(t, c, string(header(1, "198.51.100.7:1")))
	})
}

// TestProxySent: backends are told who the client is, before all else, whatever the form of TLS.
func TestProxySent(t *testing.T) {
	for _, f := range append(forms, form{name: "plain"}) {
		for _, version := range []string{"v1", "v2"} {
			t.Run(f.name+" "+version, func(t *testing.T) {
				ca := lbtest.NewCA(t)
				told := make(chan proxyproto.Header, 1)
				tlvs := make(chan map[byte]string, 1)
				backend := lbtest.Serve(t, func(c *net.TCPConn) {
					r := bufio.NewReader(c)
					var b []byte
					var h proxyproto.Header
					for {
						one, err := r.ReadByte()
						if err != nil {
							t.Error(err)
							return
						}
						b = append(b, one)
						if _, status := proxyproto.Parse(b, &h); status == proxyproto.Found {
							break
						} else if status != proxyproto.NeedMore {
							t.Errorf("%q: %v", b, status)
							return
						}
					}
					all := map[byte]string{}
					for k, v := range h.TLVs() {
						all[k] = string(v)
					}
					tlvs <- all
					told <- h
					if f.backTLS {
						echoTLS(nil, f.end(tls.Server(rest{c, r}, &tls.Config{Certificates: []tls.Certificate{ca.Pair("backend.test")}})))
						return
					}
					_, _ = io.Copy(c, r)
					_ = c.CloseWrite()
				})
				r := newTLSRigFor(t, f, ca, []string{lbtest.Refused(t), backend}, func(c *config.Config) {
					for i, b := range c.Pools[0].Backends {
						b.Priority = i
					}
					c.Pools[0].SendProxy = version
					if version == "v2" {
						c.Pools[0].ProxyTLVs = []string{"alpn", "authority", "tls", "unique_id", "crc32c"}
					}
					if f.terminate {
						c.Frontends[0].TLS.ALPN = []string{"h2"}
					}
				})
				if f.terminate {
					r.client.NextProtos = []string{"h2"}
				}
				raw, c := r.connect()
				big := strings.Repeat("0123456789", 20_000)
				go func() { _, _ = io.WriteString(c, big) }()
				hear(t, c, big)
				_ = c.CloseWrite()
				hearEnd(t, c, "")
				h, all := <-told, <-tlvs
				if h.Source != raw.LocalAddr().(*net.TCPAddr).AddrPort() || h.Dest != raw.RemoteAddr().(*net.TCPAddr).AddrPort() {
					t.Errorf("told of %v to %v", h.Source, h.Dest)
				}
				rec := r.wantEnds(ClientEOF)[0]
				if !f.passthrough && rec.C2B != uint64(len(big)) {
					t.Errorf("%d bytes counted", rec.C2B)
				}
				if version == "v1" {
					return
				}
				if f.terminate && (all[proxyproto.TLVALPN] != "h2" || !strings.Contains(all[proxyproto.TLVSSL], "TLSv1.3")) ||
					f.clientTLS && all[proxyproto.TLVAuthority] != r.client.ServerName || len(rec.ID) != 32 || all[proxyproto.TLVUniqueID] != rec.ID {
					t.Errorf("told %q; id %q", all, rec.ID)
				}
			})
		}
	}
}

// rest is a connection the beginning of which was read ahead.
type rest struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c rest) Read(b []byte) (int, error) { return c.r.Read(b) }

// TestProxyChain: what one proxy tells, the next one hears: through two frontends, with TLS and routes behind the header.
func TestProxyChain(t *testing.T) {
	inner := newTLSRig(t, terminate, echoTLS, accepts("required"))
	outer := newRig(t, []string{inner.address()}, func(c *config.Config) {
		accepts("required")(c)
		c.Pools[0].SendProxy, c.Pools[0].ProxyTLVs = "v2", []string{"unique_id"}
	})
	raw := outer.dial()
	_, _ = raw.Write(header(2, "198.51.100.7:1234"))
	c := tls.Client(raw, inner.client)
	say(t, c, "through both")
	hear(t, c, "through both")
	_ = c.CloseWrite()
	hearEnd(t, c, "")
	if rec := inner.wantEnds(ClientEOF)[0]; rec.Client.String() != "198.51.100.7:1234" || rec.ID != "told" || rec.TLSVersion != tls.VersionTLS13 {
		t.Errorf("%+v", rec)
	}
	_ = raw.Close()
	outer.wantEndsOneOf(ClientEOF, BackendEOF)
}

// TestProxyRoutes: routes by source go by the client's address.
func TestProxyRoutes(t *testing.T) {
	a, b := lbtest.Named(t, "a"), lbtest.Named(t, "b")
	r := newRig(t, []string{a}, func(c *config.Config) {
		accepts("required")(c)
		q := *c.Pools[0]
		q.Name, q.Backends = "q", backendConfigs([]string{b})
		c.Pools = append(c.Pools, &q)
		c.Frontends[0].Routes = []*config.Route{{Match: config.Match{Source: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, Pool: "q"}}
	})
	for source, want := range map[string]string{"198.51.100.1:1": "b", "203.0.113.1:1": "a"} {
		c := r.dial()
		_, _ = c.Write(header(1, source))
		got := make([]byte, 1)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q, %v", source, got, err)
		}
	}
}
