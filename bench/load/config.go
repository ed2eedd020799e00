package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"awe4lb/bench/wire"
)

// Mode is a kind of load.
type Mode string

// The modes.
const (
	Requests    Mode = "requests"    // keep-alive requests over a fixed set of connections
	Connections Mode = "connections" // short connections: connect, one request, response, close
	Bulk        Mode = "bulk"        // streams of bytes, up, down or both at once
	HalfOpen    Mode = "half-open"   // TLS: clients that have sent their ClientHello, heard the answer, and stay silent
	Idle        Mode = "idle"        // connections that have had one request and then stay silent
	Stall       Mode = "stall"       // downloads whose client reads nothing until released, then everything
	UDP         Mode = "udp"         // datagrams of many clients, each answered by the UDP echo
)

// Modes lists all of them, in the order help shows them.
var Modes = []Mode{Requests, Connections, Bulk, Idle, Stall, HalfOpen, UDP}

// Config is one run of the generator. Fields that do not belong to the mode are ignored.
type Config struct {
	Mode    Mode
	Target  string // IPv4 address and port
	Conns   int    // connections (requests, idle), parallel connections (connections), streams (bulk, stall), clients (udp)
	Threads int    // event loops, one OS thread each; 0 = 1. Connections are dealt out evenly.

	Warmup   time.Duration // load without measuring, before
	Duration time.Duration // the measured window
	Count    int64         // requests, connections, udp: stop after this many instead, without warm-up; 0 = by Duration
	Timeout  time.Duration // for one connect, one request, or a bulk stream without progress, 0 = 10 s; for a datagram's answer, 0 = 500 ms

	// Rate is the offered load per second over all loops (requests, connections, udp). 0 is a closed loop: as fast as
	// responses come. With a rate, latency counts from the moment a request should have been sent, whether or not the
	// connection was free then: a stall is charged to every request it delayed.
	Rate float64

	RequestBytes  int  // head and all; smaller than an honest GET means the honest GET
	ResponseBytes int  // body; wire.DefaultBody has 13
	ClientCloses  bool // connections: the client closes first and keeps the TIME_WAIT; otherwise the backend does

	Up, Down bool   // bulk: directions
	Bytes    uint64 // bulk, stall: per stream and direction, then stop; 0 = by Duration (bulk only)
	Verify   bool   // bulk, stall: compare every byte at both ends

	// TLS, if set, is spoken to the target (requests, connections, bulk, idle, half-open).
	TLS *TLS

	DatagramBytes int  // udp: payload, 0 = 64
	Window        int  // udp, closed loop: datagrams out at a time over all loops, 0 = 256
	Train         int  // udp: datagrams of a client that leave at once, 0 = 1
	OneWay        bool // udp: the echo stays silent, and sending is all that is counted
	Fresh         bool // udp: no client is proved before the run, so that its first datagram makes its flow
	Ports         int  // udp: ports the clients share per loop, 0 = 4
	FirstPort     int  // udp: the lowest of them, 0 = any free ones. The same ports are the same clients, run after run
	FirstAddress  int  // udp: number of the first client's address in 127.64.0.0/10

	Sources int           // client addresses of 127.1.0.0/16 to spread over; 0 = none, or as many as Conns needs
	Hold    time.Duration // idle, stall: how long to stay silent when Gate is nil
	Watch   []Watch       // process trees whose CPU is read at both ends of the window
	Gate    *Gate         // the points where somebody else may look; nil = do not stop
}

// Watch names a process tree.
type Watch struct {
	Name string
	PID  int
}

// Gate lets a runner hold the generator at two points: when every connection is open and proved by one request, and when
// the load is over but the connections are still open. Both functions block for as long as they like.
type Gate struct {
	Ready func(ctx context.Context) error
	Done  func(ctx context.Context) error
}

// connsPerSource stays under the 28,232 ephemeral ports a default Linux has per source and destination.
const connsPerSource = 25000

// withDefaults returns cfg completed, or an error that says what is missing.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Threads <= 0 {
		cfg.Threads = 1
	}
	if cfg.Conns <= 0 {
		cfg.Conns = 1
	}
	cfg.Threads = min(cfg.Threads, cfg.Conns)
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
		if cfg.Mode == UDP {
			cfg.Timeout = defaultPatience
		}
	}
	if cfg.ResponseBytes == 0 {
		cfg.ResponseBytes = len(wire.DefaultBody)
	}
	if cfg.Sources == 0 && cfg.Conns > connsPerSource {
		cfg.Sources = (cfg.Conns + connsPerSource - 1) / connsPerSource
	}
	switch {
	case cfg.ResponseBytes < 0 || cfg.ResponseBytes > wire.MaxResponseBytes:
		return cfg, fmt.Errorf("response of %d bytes: want 1 to %d", cfg.ResponseBytes, wire.MaxResponseBytes)
	case cfg.Rate < 0:
		return cfg, fmt.Errorf("rate %v: want a number of units per second, or 0 for as fast as possible", cfg.Rate)
	}
	switch cfg.Mode {
	case Requests, Connections:
		if cfg.Duration <= 0 && cfg.Count <= 0 {
			return cfg, errors.New("want a duration, or a count of units to stop after")
		}
		if cfg.Count > 0 && cfg.Rate > 0 {
			return cfg, errors.New("a count and a rate exclude each other: give a rate and a duration")
		}
	case Bulk:
		if !cfg.Up && !cfg.Down {
			return cfg, errors.New("bulk needs a direction: up, down or both")
		}
		if cfg.Duration <= 0 && cfg.Bytes == 0 {
			return cfg, errors.New("bulk wants a duration, or a number of bytes per stream")
		}
		cfg.Rate = 0
	case UDP:
		if err := cfg.datagramDefaults(); err != nil {
			return cfg, err
		}
	case Idle, HalfOpen:
		cfg.Rate, cfg.Count = 0, 0
	case Stall:
		cfg.Up, cfg.Down, cfg.Rate = false, true, 0
		if cfg.Bytes == 0 {
			return cfg, errors.New("stall wants a number of bytes per stream")
		}
	default:
		return cfg, fmt.Errorf("mode %q: want one of %v", cfg.Mode, Modes)
	}
	if cfg.Count > 0 || cfg.Bytes > 0 {
		cfg.Warmup = 0
	}
	return cfg, cfg.checkTLS()
}

func (cfg *Config) checkTLS() error {
	switch {
	case cfg.TLS == nil && cfg.Mode == HalfOpen:
		return errors.New("half-open is about TLS: want a version of it")
	case cfg.TLS != nil && (cfg.Mode == UDP || cfg.Mode == Stall):
		return fmt.Errorf("mode %s has no TLS", cfg.Mode)
	case cfg.TLS != nil && cfg.ClientCloses:
		return errors.New("over TLS the backend closes first")
	case cfg.TLS != nil && cfg.TLS.Resume && cfg.Mode != Connections:
		return errors.New("only mode connections resumes sessions")
	}
	return nil
}

// silent says whether all the run does is to hold connections.
func (cfg *Config) silent() bool { return cfg.Mode == Idle || cfg.Mode == HalfOpen }

// datagramDefaults completes what belongs to UDP.
func (cfg *Config) datagramDefaults() error {
	set := func(p *int, to int) {
		if *p <= 0 {
			*p = to
		}
	}
	set(&cfg.DatagramBytes, 64)
	set(&cfg.Window, 256)
	set(&cfg.Train, 1)
	set(&cfg.Ports, 4)
	switch {
	case cfg.Duration <= 0 && cfg.Count <= 0:
		return errors.New("want a duration, or a count of datagrams to stop after")
	case cfg.Count > 0 && cfg.Rate > 0:
		return errors.New("a count and a rate exclude each other: give a rate and a duration")
	case cfg.DatagramBytes < wire.DatagramHeader || cfg.DatagramBytes > wire.MaxDatagram:
		return fmt.Errorf("datagrams of %d bytes: want %d to %d", cfg.DatagramBytes, wire.DatagramHeader, wire.MaxDatagram)
	case cfg.Train > maxTrain || cfg.Train > 1 && cfg.Train*cfg.DatagramBytes > wire.MaxDatagram:
		return fmt.Errorf("trains of %d datagrams of %d bytes: the kernel cuts up to %d out of %d bytes", cfg.Train, cfg.DatagramBytes, maxTrain, wire.MaxDatagram)
	case cfg.Window < cfg.Train*cfg.Threads:
		return fmt.Errorf("a window of %d datagrams: want room for a train of %d per thread", cfg.Window, cfg.Train)
	}
	return nil
}

// maxTrain is the kernel's UDP_MAX_SEGMENTS of old; newer ones allow 128.
const maxTrain = 64

// counted says whether the run ends by an amount of work rather than by time.
func (cfg *Config) counted() bool { return cfg.Count > 0 || cfg.Bytes > 0 }
