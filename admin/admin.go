package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/discovery"
	"awe4lb/engine"
	"awe4lb/health"
	"awe4lb/internal/socketfile"
	"awe4lb/tlsbridge/acme"
	"awe4lb/tlsbridge/certs"

	"github.com/valyala/fasthttp"
)

// Options are what an admin serves.
type Options struct {
	Engine   *engine.Engine
	Director *balancer.Director
	Reload   func() (*balancer.Report, error) // safe from any goroutine
	Reloads  func() Reloads                   // safe from any goroutine
	Configs  Configs                          // what runs, and how it is changed
	Log      *slog.Logger
	Version  string    // of the program
	Revision string    // the commit it was built from; "" when unknown
	Started  time.Time // of the process
	File     string    // the configuration

	Certificates *certs.Keeper // nil: there are none
	Issuer       *acme.Issuer  // nil: there is none

	Health    *health.Prober    // nil: there is none
	Discovery *discovery.Keeper // nil: there is none

	Level    func() slog.Level // of the log; safe from any goroutine, as SetLevel
	SetLevel func(slog.Level)  // until the next reload
	End      func()            // begins the drain after which the process ends, as SIGTERM does; does not wait; safe from any goroutine
}

// Refusal is an error of Options.Reload that names the answer it deserves.
type Refusal struct {
	Status int // of HTTP
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Reloads is the history of reloads.
type Reloads struct {
	OK     uint64    // that were applied, the start not counted
	Failed uint64    // that were refused
	Last   time.Time // when the last one, or the start, was tried
	LastOK bool      // whether that one was applied
	Error  string    // why it was not
}

// Server answers on one address. Make one with Start.
type Server struct {
	// Set once, never changed.
	o        Options
	listener net.Listener
	tls      bool
	secure   *secure // nil without TLS
	server   *fasthttp.Server
	done     chan struct{}
	quit     chan struct{} // closed by Stop
	grace    time.Duration // of Stop

	// Shared, each with its own lock or atomic.
	access   atomic.Pointer[access]   // replaced by reloads
	history  atomic.Pointer[history]  // replaced every historyStep
	last     atomic.Pointer[lastStep] // the same
	push     pusher
	streams  streams
	stopping sync.Once
	looking  sync.Mutex // held while a call that changes nothing is answered
	editing  sync.Mutex // held while a call changes a part of what runs, so that such calls do not refuse each other
	crowd    crowd
	looks    looks
	clients  clients
	logins   logins
	guesses  throttle
	queue    queue
	audits   audits
	judged   judged

	upgrades atomic.Bool // one is under way
}

// A stranger can make none of these grow: the API takes small requests from few clients.
const (
	maxBody     = 1 << 20
	maxHeader   = 8 << 10 // with the request line
	maxClients  = 512
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Start listens on the address of c, which is valid, and answers until Stop. A *ConfigError is about files that c names.
func Start(c *config.Admin, o Options) (*Server, error) {
	access, err := newAccess(c)
	if err != nil {
		return nil, &ConfigError{err}
	}
	var secure *secure
	if c.TLS != nil {
		if secure, err = newSecure(c.TLS, o.Log); err != nil {
			return nil, &ConfigError{err}
		}
	}
	l, err := listen(c.Address)
	if err != nil {
		return nil, fmt.Errorf("admin.bind: %w", err)
	}
	l = &patient{Listener: l, closed: make(chan struct{})}
	if secure != nil {
		l = tls.NewListener(l, secure.config())
	}
	s := &Server{o: o, listener: l, tls: secure != nil, secure: secure, done: make(chan struct{}), quit: make(chan struct{}), grace: stopGrace}
	s.clients.most, s.clients.open = maxClients, map[net.Conn]*client{}
	s.access.Store(access)
	first := s.count()
	s.last.Store(&lastStep{first, first})
	s.history.Store(&history{Step: historyStep.Seconds(), End: rounded(time.Now()), Series: newSeries()})
	s.server = &fasthttp.Server{
		Handler:                      s.routes(),
		ErrorHandler:                 s.unread,
		ExpectHandler:                s.expected,
		ReadBufferSize:               maxHeader,
		Name:                         "awe4lb",
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 readTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           maxBody,
		Concurrency:                  4 * maxClients, // which it never meets: see clients
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		ConnState:                    s.clients.note,
		Logger:                       quiet{},
	}
	go s.keepHistory()
	s.push.apply(s, c.Push)
	go func() {
		defer close(s.done)
		if err := s.server.Serve(&door{l, &s.clients}); err != nil {
			o.Log.Error("admin stopped", "error", err)
		}
	}()
	return s, nil
}

// Prepare reads who may do what by c, which is the [admin] of a configuration about to be applied. Nothing has changed until
// apply is called; then logins end unless everything is as it was, and the metrics go where c says.
func (s *Server) Prepare(c *config.Admin) (apply func(), err error) {
	next, err := newAccess(c)
	if err == nil {
		err = s.staysClosed(c)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if old := s.access.Swap(next); !old.same(next) {
			s.logins.endAll()
		}
		s.push.apply(s, c.Push)
	}, nil
}

// ConfigError is a mistake in [admin] that only shows when its files are read.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

func listen(a config.Address) (net.Listener, error) {
	if !a.IsUnix() {
		l, err := net.Listen("tcp", a.String())
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			err = fmt.Errorf("%w (another process listens there: ss -ltnp 'sport = :%d')", err, a.IP.Port())
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			err = fmt.Errorf("%w (no interface of this host has that address)", err)
		}
		return l, err
	}
	switch err := socketfile.MakeWay(a.Path); {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: another process listens there", a)
	case err != nil:
		return nil, err
	}
	return listenUnix(a.Path)
}

// listenUnix listens on a socket that is its owner's alone. The mode is that of the descriptor when it is bound (unix(7)), so that
// nobody can connect before a chmod, whatever the umask.
func listenUnix(path string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = os.NewSyscallError("fchmod", syscall.Fchmod(int(fd), 0o600)) }); e != nil {
			return e
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove whatever is there by then: see Stop
	return l, nil
}

// patient is a listener that waits where fasthttp would give up for good: when the process or the system is out of
// descriptors or memory for a while.
type patient struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (p *patient) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
		default:
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-p.closed:
			return nil, net.ErrClosed
		}
	}
}

func (p *patient) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// Address returns where s listens, with the port the system chose.
func (s *Server) Address() string {
	if s.listener.Addr().Network() == "unix" {
		return "unix:" + s.listener.Addr().String()
	}
	return s.listener.Addr().String()
}

// index lists what there is, for who comes by curl.
func (s *Server) index(c *fasthttp.RequestCtx) {
	c.SetContentType("text/plain; charset=utf-8")
	fmt.Fprintf(c, "awe4lb %s\n\nGET  /healthz\n     ok, or 503 while draining\nGET  /metrics\n     for Prometheus\n", s.o.Version)
	for _, e := range endpoints() {
		fmt.Fprintf(c, "%-4s %s\n     %s\n", e.method, e.path, e.does)
	}
}

func (s *Server) healthz(c *fasthttp.RequestCtx) {
	if s.o.Engine.Draining() {
		c.SetStatusCode(fasthttp.StatusServiceUnavailable)
		c.SetBodyString("draining\n")
		return
	}
	c.SetBodyString("ok\n")
}

// report is the answer of a reload: what the director says.
type report = balancer.Report

func (s *Server) reload(*call) (any, error) { return s.o.Reload() }

// quiet drops fasthttp's own messages, which are about what clients do wrong.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
