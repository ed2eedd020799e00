package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge"
)

// State is where a name stands; doc.go draws the transitions.
type State string

// The states of a name.
const (
	Wanted   State = "wanted"   // no certificate yet, and no attempt
	Ordering State = "ordering" // an attempt goes on
	Valid    State = "valid"    // there is a certificate and it is not due
	Failing  State = "failing"  // the last attempt failed; there may be a certificate nonetheless
)

// Status is what became of a name. Zero times are unknown or never.
type Status struct {
	Name        string
	State       State
	NotAfter    time.Time // until when the certificate in use is good
	LastError   string    // of the last attempt, with what to do; "" after a success
	LastAttempt time.Time // when it began
	NextAttempt time.Time // not before this time; for a valid certificate, when it is due
	Failures    int       // in a row
}

// Counters count since New.
type Counters struct {
	Obtained uint64 // certificates from the CA, renewals included
	Failed   uint64 // attempts

	// Questions of a CA, or of anybody: those that we had an answer to, and those that we had none to.
	TLSALPN01, TLSALPN01Unknown uint64
	HTTP01, HTTP01Unknown       uint64
}

// Issuer gets certificates and answers challenges. Safe from any goroutine.
type Issuer struct {
	// Set once, never changed.
	log     *slog.Logger
	changed chan struct{} // holds one

	// Set once; tests have their own.
	backoff   func(failures int, answered bool) time.Duration
	sharePoll time.Duration

	// Shared: atomics.
	certificates     atomic.Pointer[map[string]*tlsbridge.Certificate] // by name; immutable
	challenges       challenges
	obtained, failed atomic.Uint64

	// Guarded by mu.
	mu     sync.Mutex
	engine *engine // nil: nothing is wanted
	closed bool
	gate   chan struct{} // closed: work goes on; see Hold

	running sync.WaitGroup // the goroutines of all engines, those that are ending too
}

// New returns an Issuer that manages nothing yet. It tells log of certificates obtained and attempts that failed.
func New(log *slog.Logger) *Issuer {
	i := &Issuer{log: log, changed: make(chan struct{}, 1), backoff: backoff, sharePoll: sharePoll}
	i.certificates.Store(&map[string]*tlsbridge.Certificate{})
	i.Hold()()
	return i
}

// Hold keeps what Manage wants from being begun, until release is called: for a process that is about to become another
// user, whose the files are to be. To be called before the first Manage.
func (i *Issuer) Hold() (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	gate := make(chan struct{})
	i.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// Manage makes names, DNS names without wildcards, the ones that certificates are wanted for. Certificates that the storage
// folder has are there when it returns; the rest happens in the background. Another directory, email or binding means
// another account, and certificates from there; until they come, those in use stay. It fails for what is wrong with the
// settings or the storage folder, and then nothing has changed. It reads files; it never waits for the network.
func (i *Issuer) Manage(settings config.ACME, names []string) error {
	names, err := normalize(names)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return errors.New("acme: closed")
	}
	var next *engine
	if len(names) > 0 {
		if next, err = newEngine(i, settings); err != nil {
			return err
		}
		if i.engine != nil && i.engine.same(next) {
			next = i.engine
		}
	}
	if i.engine != nil && i.engine != next {
		i.engine.stop()
	}
	i.engine = next
	i.forget(names)
	if next != nil {
		next.want(names)
	}
	return nil
}

var dnsName = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// normalize returns names as certificates and the storage have them, sorted, each once.
func normalize(names []string) ([]string, error) {
	var all []string
	for _, given := range names {
		name := canonical(given)
		if strings.HasPrefix(name, "*") {
			return nil, fmt.Errorf("acme: got %q; want single names: wildcards need a DNS-01 challenge, which awe4lb does not do", given)
		}
		if _, err := netip.ParseAddr(name); err == nil {
			return nil, fmt.Errorf("acme: got %q; want a DNS name, not an IP address", given)
		}
		if !dnsName.MatchString(name) || len(name) > 253 {
			return nil, fmt.Errorf("acme: got %q; want a DNS name (an international one in its form with xn--)", given)
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Certificate returns the newest certificate for a name that was good when it came, or nil: none yet. Never blocks or
// allocates.
func (i *Issuer) Certificate(name string) *tlsbridge.Certificate {
	m := *i.certificates.Load()
	if c := m[name]; c != nil {
		return c
	}
	return m[canonical(name)]
}

// canonical returns name in lower case and without a trailing dot.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Changed receives when Certificate may return another one for some name. One value may stand for many changes.
func (i *Issuer) Changed() <-chan struct{} { return i.changed }

// Challenge is a tls.Config.GetCertificate for clients whose hello offers acme-tls/1 and nothing else. It returns the
// certificate that proves the name is ours, or an error: nobody has asked for that proof. Never blocks.
func (i *Issuer) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return i.challenges.certificate(hello)
}

// HTTP01 returns the body of the answer to GET /.well-known/acme-challenge/TOKEN, and whether there is one: the request is
// somebody else's otherwise. One atomic load and a look into a map.
func (i *Issuer) HTTP01(token string) (keyAuthorization string, ok bool) {
	return i.challenges.keyAuthorization(token)
}

// Renew makes a name due now, however fresh its certificate. It returns at once; Status tells the rest. It fails for a name
// that is not managed.
func (i *Issuer) Renew(name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.engine == nil || i.engine.tasks[canonical(name)] == nil {
		return fmt.Errorf("acme: %q is in no frontend's tls.acme", name)
	}
	i.engine.tasks[canonical(name)].renewNow()
	return nil
}

// Status returns where each name stands, by name.
func (i *Issuer) Status() []Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.engine == nil {
		return nil
	}
	var all []Status
	for _, t := range i.engine.tasks {
		s := t.report()
		if c := i.Certificate(s.Name); c != nil {
			s.NotAfter = c.NotAfter
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Counters returns what was counted.
func (i *Issuer) Counters() Counters {
	c := &i.challenges
	return Counters{Obtained: i.obtained.Load(), Failed: i.failed.Load(),
		TLSALPN01: c.tlsALPN.Load(), TLSALPN01Unknown: c.tlsALPNUnknown.Load(),
		HTTP01: c.http.Load(), HTTP01Unknown: c.httpUnknown.Load()}
}

// Close ends everything that goes on in the background and waits for it. Certificate and the answers stay as they are.
func (i *Issuer) Close() {
	i.mu.Lock()
	i.closed = true
	if i.engine != nil {
		i.engine.stop()
	}
	i.mu.Unlock()
	i.running.Wait()
}

// publish hands out c for name from now on, unless it is there already. The caller holds no lock of ours.
func (i *Issuer) publish(ctx context.Context, name string, c *tlsbridge.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() == nil {
		i.publishLocked(name, c)
	}
}

// publishLocked is publish for those who hold mu.
func (i *Issuer) publishLocked(name string, c *tlsbridge.Certificate) {
	old := *i.certificates.Load()
	if was := old[name]; was != nil && was.Fingerprint() == c.Fingerprint() {
		return
	}
	updated := maps.Clone(old)
	updated[name] = c
	i.certificates.Store(&updated)
	i.tell()
}

// forget hands out nothing any more for names other than these. mu is held.
func (i *Issuer) forget(others []string) {
	kept := map[string]*tlsbridge.Certificate{}
	old := *i.certificates.Load()
	for name, c := range old {
		if slices.Contains(others, name) {
			kept[name] = c
		}
	}
	if len(kept) < len(old) {
		i.certificates.Store(&kept)
		i.tell()
	}
}

// tell wakes who waits for Changed.
func (i *Issuer) tell() {
	select {
	case i.changed <- struct{}{}:
	default:
	}
}
