//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/net/quic"
)

// quicServer answers every byte with itself, on each stream of each connection.
type quicServer struct {
	address string
	conns   atomic.Int64
}

// certificate is for a name, and signed by itself.
func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func startQUIC(t *testing.T, cert tls.Certificate) *quicServer {
	t.Helper()
	e, err := quic.Listen("udp", "127.0.0.1:0", &quic.Config{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"echo"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &quicServer{address: e.LocalAddr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		closeQUIC(e)
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := e.Accept(ctx)
			if err != nil {
				return
			}
			s.conns.Add(1)
			wg.Go(func() {
				for {
					stream, err := c.AcceptStream(ctx)
					if err != nil {
						return
					}
					stream.SetReadContext(ctx)
					stream.SetWriteContext(ctx)
					wg.Go(func() {
						_, _ = io.Copy(stream, stream)
						stream.CloseWrite()
					})
				}
			})
		}
	})
	return s
}

// closeQUIC closes an endpoint; one that does not say goodbye within a second is closed all the same.
func closeQUIC(e *quic.Endpoint) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.Close(ctx)
}

// streams has n streams of a connection carry size bytes each there and back, all at once, and checks every byte.
func streams(ctx context.Context, c *quic.Conn, n int, size int64) error {
	var wg sync.WaitGroup
	failed := make(chan error, 2*n)
	for i := range n {
		seed := uint64(i)
		s, err := c.NewStream(ctx)
		if err != nil {
			return err
		}
		s.SetReadContext(ctx)
		s.SetWriteContext(ctx)
		wg.Go(func() {
			if _, err := io.Copy(struct{ io.Writer }{s}, lbtest.NewStream(seed, size)); err != nil {
				failed <- fmt.Errorf("stream %d: write: %w", seed, err)
			}
			s.CloseWrite()
		})
		wg.Go(func() {
			if err := lbtest.NewStream(seed, size).Check(s); err != nil {
				failed <- fmt.Errorf("stream %d: %w", seed, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// A QUIC connection is the longest flow there is: it lives as long as a TCP connection, and a datagram that reached another
// backend would be one of an unknown connection. It goes on through reloads, one of which puts other backends before its
// own, through a time of silence longer than unreplied_timeout, and keeps its backend.
func TestQUIC(t *testing.T) {
	cert := certificate(t, "quic.test")
	var servers []*quicServer
	for range 3 {
		servers = append(servers, startQUIC(t, cert))
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)

	lb := start(t, balanceDatagrams(`idle_timeout = "6s"`, servers[0].address, servers[1].address))
	client, err := quic.Listen("udp", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQUIC(client) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config := &quic.Config{TLSConfig: &tls.Config{RootCAs: roots, ServerName: "quic.test", MinVersion: tls.VersionTLS13, NextProtos: []string{"echo"}}}
	conn, err := client.Dial(ctx, "udp", lb.address("test"), config)
	if err != nil {
		t.Fatal(err)
	}
	if want := netip.MustParseAddrPort(lb.address("test")); conn.RemoteAddr() != want {
		t.Errorf("connected to %v, want %v", conn.RemoteAddr(), want)
	}

	const n, size = 4, 4 << 20
	began := time.Now()
	done := make(chan error)
	go func() { done <- streams(ctx, conn, n, size) }()
	moved := func() int64 { return lb.frontend("test").Bytes.B2C }
	lbtest.EventuallyIn(t, 30*time.Second, "a quarter is there", func() bool { return moved() > n*size/4 })
	lb.hangUp() // nothing has changed
	lbtest.EventuallyIn(t, 30*time.Second, "half is there", func() bool { return moved() > n*size/2 })
	lb.edit(balanceDatagrams(`idle_timeout = "6s"`, servers[2].address, servers[1].address, servers[0].address))
	lb.hangUp()
	if atReload := moved(); atReload > n*size {
		t.Logf("the reloads came late: after %d bytes", atReload)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d streams of %d MB each way, with two reloads, in %v", n, size>>20, time.Since(began).Round(time.Millisecond))

	time.Sleep(3 * time.Second) // silence is what is tested: no event tells of it
	if err := streams(ctx, conn, n, 1<<20); err != nil {
		t.Fatalf("after three seconds of silence: %v", err)
	}

	f := lb.frontend("test")
	if f.Accepted != 1 || f.Open != 1 {
		t.Errorf("%d flows, %d of them open; want the one", f.Accepted, f.Open)
	}
	if drops := dropsOf(f); drops > 0 {
		t.Errorf("dropped %v and %v", f.UDP.DroppedC2B, f.UDP.DroppedB2C)
	}
	t.Logf("%d datagrams up, %d down", f.UDP.Datagrams.C2B, f.UDP.Datagrams.B2C)
	var taken []int64
	for _, s := range servers {
		taken = append(taken, s.conns.Load())
	}
	if taken[0]+taken[1] != 1 || taken[2] != 0 {
		t.Errorf("the servers took %v connections; want one, by one of the first two", taken)
	}
	var used bytes.Buffer
	for _, b := range lb.status().Pools[0].Backends {
		if b.Bytes.C2B > 0 {
			fmt.Fprintf(&used, "%s ", b.Address)
		}
	}
	if bytes.Count(used.Bytes(), []byte(" ")) != 1 {
		t.Errorf("datagrams went to %s; want one backend", used.String())
	}
}
