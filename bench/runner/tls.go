package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"awe4lb/bench/certs"
	"awe4lb/bench/load"
	"awe4lb/bench/report"
)

// This file holds what is measured over TLS. Everything is AES-128-GCM and X25519 (Go's default X25519MLKEM768 is unknown
// to the OpenSSL that haproxy and nginx are built with), and the backends are plain.

const (
	tlsClients     = "32" // handshakes at a time
	floodConns     = "16"
	floodRate      = 800 // requests per second of the connections that suffer
	floodHandshake = 300 // handshakes per second, RSA: a third of a core and more
	floodClients   = "64"
	floodTail      = 400 * time.Millisecond // for the flood to outlast the requests
)

// tlsScenarios lists the repeated loads over TLS.
func tlsScenarios() []scenario {
	handshakes := func(key, title, version string, rsa, quick bool, flags ...string) scenario {
		return scenario{Scenario: report.Scenario{Key: key, Title: "TLS " + version + ", " + title, TLS: true, Unit: report.PerHandshake,
			Note: tlsClients + " at a time: connect, handshake, request, close"},
			family: overTLS, rsa: rsa, quick: quick,
			args: func(*Options) []string {
				return append([]string{"connections", "--conns", tlsClients, "--tls", version}, flags...)
			}}
	}
	other := func(key, title, note string, unit report.Unit, quick bool, args ...string) scenario {
		return scenario{Scenario: report.Scenario{Key: key, Title: "TLS, " + title, Note: note, TLS: true, Unit: unit}, family: overTLS, quick: quick,
			bulk: unit == report.PerGB, args: func(*Options) []string { return append(args, "--tls", "1.3") }}
	}
	flood := other(report.TLSFlood, "16 connections while "+strconv.Itoa(floodHandshake)+" RSA handshakes a second arrive", "requests, open loop", report.PerRequest, true,
		"requests", "--conns", floodConns, "--rate", strconv.Itoa(floodRate))
	flood.Open, flood.Offered, flood.flood = true, floodRate, true
	return []scenario{
		handshakes(report.TLSFull, "full handshakes, ECDSA P-256", "1.3", false, true),
		handshakes(report.TLS12Full, "full handshakes, ECDSA P-256", "1.2", false, false),
		handshakes(report.TLSRSA, "full handshakes, RSA 2048", "1.3", true, true),
		handshakes(report.TLSResumed, "resumed handshakes", "1.3", false, true, "--resume"),
		handshakes(report.TLS12Resumed, "resumed handshakes", "1.2", false, false, "--resume"),
		other(report.TLSKeep64, "keep-alive, 64 connections", "requests, closed loop", report.PerRequest, true, "requests", "--conns", "64"),
		other(report.TLSUp8, "8 streams up", "as fast as it goes", report.PerGB, false, "bulk", "--conns", "8", "--up"),
		other(report.TLSDown8, "8 streams down", "as fast as it goes", report.PerGB, true, "bulk", "--conns", "8", "--down"),
		flood,
	}
}

// floodWindow is longer than others: a percentile at a fixed rate needs its number of requests.
func (o *Options) floodWindow() time.Duration { return 2 * o.Window }

// floodWarmup gives the flood's generator time to start.
func (o *Options) floodWarmup() time.Duration { return max(o.Warmup, 250*time.Millisecond) }

// secure returns where a scenario's load goes, and what the generator must know of the certificate there.
func (p Place) secure(sc scenario) (to string, args []string) {
	switch {
	case sc.rsa:
		return p.TLSRSA, []string{"--certificate", p.RSA}
	case sc.bulk:
		return p.Bulk, []string{"--certificate", p.ECDSA}
	}
	return p.TLS, []string{"--certificate", p.ECDSA}
}

// makeCertificates writes the two that everybody serves.
func (e *env) makeCertificates() error {
	e.ecdsa, e.rsa = filepath.Join(e.dir, "ecdsa.pem"), filepath.Join(e.dir, "rsa.pem")
	for path, pair := range map[string]func() ([]byte, error){e.ecdsa: certs.ECDSA, e.rsa: certs.RSA} {
		text, err := pair()
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newTLSPlace is newPlace for TLS.
func (e *env) newTLSPlace(s System) (Place, error) {
	p, err := e.newPlace(s)
	if err != nil {
		return p, err
	}
	var err1, err2 error
	p.TLS, err1 = e.freeAddress()
	p.TLSRSA, err2 = e.freeAddress()
	p.ECDSA, p.RSA, p.TLSNice = e.ecdsa, e.rsa, s.TLSNice
	return p, errors.Join(err1, err2)
}

// flood is RSA handshakes that arrive while something else is measured.
type flood struct {
	length time.Duration
	result *load.Result

	over chan error // nil before begin
}

// begin starts the flood; wait waits for its end.
func (f *flood) begin(ctx context.Context, e *env, in *instance) {
	f.over = make(chan error, 1)
	go func() { // ends with the flood, and wait takes its word
		var err error
		f.result, err = e.generate(ctx, nil, "connections", "--conns", floodClients, "--rate", strconv.Itoa(floodHandshake), "--tls", "1.3",
			"--to", in.place.TLSRSA, "--certificate", in.place.RSA, "--duration", f.length.String(), "--warmup", "0s")
		f.over <- err
	}()
}

func (f *flood) wait() error {
	if f.over == nil {
		f.result = &load.Result{}
		return nil
	}
	return <-f.over
}

// share returns the share of the machine that the flood's generator used.
func (f *flood) share() float64 {
	u, _ := f.result.CPUOf("generator")
	if f.result.Seconds == 0 {
		return 0
	}
	return u.Total.Seconds() / f.result.Seconds / float64(runtime.NumCPU())
}

// errorTexts joins what went wrong with the requests and with the flood.
func errorTexts(requests, flood *load.Result) string {
	var out []string
	if requests.Failed() {
		out = append(out, requests.ErrorText())
	}
	if flood.Failed() {
		out = append(out, "the flood: "+flood.ErrorText())
	}
	return strings.Join(out, "; ")
}

// secureMemory holds TLS connections, or handshakes that do not go on, through a fresh instance.
func (e *env) secureMemory(ctx context.Context, s System, kind string) error {
	place, err := e.newTLSPlace(s)
	if err != nil {
		return err
	}
	in, err := e.startAt(ctx, s, place)
	if err != nil {
		return err
	}
	defer e.procs.Stop(in.process)
	m := report.Memory{System: s.Name, Kind: kind, Connections: min(e.o.IdleConns*4/9, (int(e.openFiles)-400)/s.FDsPerConn)}
	mode := "idle"
	if kind == report.MemoryHalfOpen {
		mode = "half-open"
	}
	return e.hold(ctx, in, m, mode, "--to", place.TLS, "--tls", "1.3", "--threads", "2")
}
