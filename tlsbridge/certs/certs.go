// Package certs keeps what the TLS tables of a configuration name: certificates, keys, authorities, tickets. It reads and
// checks them before they are used, watches them, and has new ones used by the handshakes that follow, without a reload.
//
//	files.go        a file as it was read, and how to see that it is another now
//	watched.go      what files are read for: checked first, then put to use, at the start, at a reload, when they change
//	prepare.go      what one configuration needs: Keeper.Prepare, and Check for those who only want to know
//	server.go       a frontend's part: certificates by name, client authorities, challenges
//	selfsigned.go   pairs that are made when there is none
//	staple.go       OCSP responses: asked for, judged, stapled
//	expiry.go       who is told, and how often, that a certificate ends
//	status.go       what the admin shows
//
// A Keeper has one goroutine of its own, which looks at the files and the clock every two seconds, and a few for OCSP
// responders, which may take their time. Nothing here is called by a handshake but what is in memory: see Server.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge"
)

// Set is what one configuration needs. Immutable, but for what its Servers and Clients hand out.
type Set struct {
	Servers map[string]*Server           // by frontend, those with a tls table
	Clients map[string]*tlsbridge.Client // by pool, those with a tls table

	cfg     *config.Config
	secret  *watched           // engine.ticket_secret; nil: none
	random  *tlsbridge.Tickets // without it
	pairs   map[pairKey]*pair
	pools   map[string]*pool
	watched []*watched // of all of these, each once
	notes   []string   // what is odd; Commit logs it
	more    []string   // what else Notes tells

	commits []func() // what Commit does: puts to use what was read again for what stays
}

// Issuer gets certificates from a certificate authority and answers its challenges; package acme has one.
type Issuer interface {
	// Manage makes names the ones that certificates are wanted for, from now on, in the background. It fails only for what is
	// wrong with the settings. Never blocks for the network.
	Manage(settings config.ACME, names []string) error

	// Certificate returns the newest valid certificate for a name, or nil: none yet. Never blocks.
	Certificate(name string) *tlsbridge.Certificate

	// Changed receives when Certificate may return another.
	Changed() <-chan struct{}

	// Challenge returns the certificate that answers a TLS-ALPN-01 challenge: the client offers acme-tls/1 and nothing else.
	// Never blocks.
	Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Period is how often files are looked at. A change is used one or two periods after it was made.
const Period = 2 * time.Second

// Keeper keeps the Set in use. Safe from any goroutine; Prepare and Commit take turns, as a reload does.
type Keeper struct {
	// Set once, never changed; tests set their own before the first Prepare.
	log    *slog.Logger
	issuer Issuer // nil: none
	period time.Duration
	now    func() time.Time
	client *http.Client // to OCSP responders

	// Shared: atomics.
	status   atomic.Pointer[[]CertificateStatus]
	problems atomic.Pointer[[]string]
	counters counters

	// Guarded by mu. It is held while files are read, so the two above are for those who must not wait.
	mu       sync.Mutex
	set      *Set
	rotate   time.Time // when the ticket keys change
	staples  map[string]*staple
	fetching int // staples asked for at this moment
	told     map[string]*told
	managed  bool // the issuer has had names
	started  bool
	dirty    bool // status and problems are to be made anew

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // the goroutine that watches, and those who ask OCSP responders; Close waits
}

// New returns a Keeper of nothing. issuer may be nil: then names of tls.acme have no certificates.
func New(log *slog.Logger, issuer Issuer) *Keeper {
	k := &Keeper{log: log, issuer: issuer, period: Period, now: time.Now, client: newHTTPClient(),
		staples: map[string]*staple{}, told: map[string]*told{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.set = &Set{}
	k.status.Store(new([]CertificateStatus))
	k.problems.Store(new([]string))
	return k
}

// Commit puts a set to use that Prepare has made last: it is watched from now on, and what was in use before and is not in
// the set no longer. It cannot fail; a self-signed pair that cannot be written is used all the same, and logged.
func (k *Keeper) Commit(set *Set) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	k.set = set
	for _, commit := range set.commits {
		commit()
	}
	set.commits = nil
	k.applyTickets(now)
	k.manage()
	k.compose(now)
	for _, note := range set.notes {
		k.log.Warn("configuration: " + note)
	}
	k.askResponders(now)
	k.expiries(now)
	k.publish()
	if !k.started && (len(set.Servers) > 0 || len(set.Clients) > 0) {
		k.started = true
		k.running.Go(k.run)
	}
}

// Close ends the watch and waits for its goroutines. What was handed out stays usable.
func (k *Keeper) Close() {
	k.cancel()
	k.running.Wait()
	k.client.CloseIdleConnections()
}

// run is the goroutine that watches.
func (k *Keeper) run() {
	ticker := time.NewTicker(k.period)
	defer ticker.Stop()
	var issued <-chan struct{}
	if k.issuer != nil {
		issued = k.issuer.Changed()
	}
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-issued:
			k.reissued()
		case <-ticker.C:
			k.look()
		}
	}
}

// look is one look at the files and the clock.
func (k *Keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for _, s := range k.set.watched {
		k.lookAt(s, now)
	}
	k.renewSelfSigned(now)
	if !now.Before(k.rotate) || k.rotate.Sub(now) > tlsbridge.TicketPeriod { // the latter: the clock was set back
		k.applyTickets(now)
	}
	k.expireStaples(now)
	if k.dirty {
		k.compose(now)
	}
	k.askResponders(now)
	k.expiries(now)
	if k.dirty {
		k.publish()
	}
}

// reissued takes what the issuer has now.
func (k *Keeper) reissued() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	k.compose(now)
	k.askResponders(now)
	k.expiries(now)
	k.publish()
}

// manage tells the issuer which names are wanted.
func (k *Keeper) manage() {
	if k.issuer == nil {
		return
	}
	var names []string
	for _, sv := range k.set.Servers {
		names = append(names, sv.table.ACME...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 && !k.managed {
		return
	}
	k.managed = len(names) > 0
	if err := k.issuer.Manage(k.set.cfg.ACME, names); err != nil {
		k.log.Error("no certificates will be got from the authority", "error", err)
	}
}

// applyTickets gives every frontend its ticket keys of now. Each frontend is a trust domain of its own.
func (k *Keeper) applyTickets(now time.Time) {
	if k.set.cfg == nil {
		return
	}
	tickets := k.set.tickets()
	for name, sv := range k.set.Servers {
		if sv.table.SessionTickets {
			tickets.Apply(sv.Config, name, now)
		}
	}
	k.rotate = tickets.Next(now)
}

// Errors is every mistake in what a configuration names.
type Errors []error

func (es Errors) Error() string { return errors.Join(es...).Error() }

// Unwrap is for errors.Is and errors.As.
func (es Errors) Unwrap() []error { return es }
