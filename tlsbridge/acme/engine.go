package acme

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"awe4lb/config"
)

// maxOrders is how many orders, and how many questions about renewal, go on at a time; a CA limits what one account may do at once.
const maxOrders = 4

// engine is one [acme] table at work. Another table, another engine; their tasks share nothing but the folder and its locks.
type engine struct {
	// Set once, never changed.
	issuer    *Issuer
	settings  config.ACME
	bundle    []byte // settings.CA, read
	storage   *storage
	authority *authority
	magic     *certmagic.Config
	slots     chan struct{} // an order goes on for each value in it
	questions chan struct{} // the same for questions about renewal
	ctx       context.Context
	cancel    context.CancelFunc

	// Guarded by issuer.mu.
	tasks    map[string]*task
	watching bool

	// Guarded by mu.
	mu     sync.Mutex
	logged map[string]time.Time // what was logged, and until when it need not be again

	running sync.WaitGroup // its tasks, those that are ending too
}

// newEngine returns an engine that wants nothing yet. It has no goroutine, so one that is not needed can be dropped.
func newEngine(i *Issuer, settings config.ACME) (*engine, error) {
	e := &engine{issuer: i, settings: settings, slots: make(chan struct{}, maxOrders), questions: make(chan struct{}, maxOrders), tasks: map[string]*task{}, logged: map[string]time.Time{}}
	var err error
	if settings.CA != "" {
		if e.bundle, err = os.ReadFile(settings.CA); err != nil {
			return nil, fmt.Errorf("acme.ca: %w", err)
		}
	}
	if e.storage, err = openStorage(settings.Storage, i.log); err != nil {
		return nil, err
	}
	if e.authority, err = newAuthority(settings, e.bundle, e.storage, solvers(&i.challenges, e.storage, 2*i.sharePoll), i.log); err != nil {
		return nil, err
	}
	// certmagic wants a cache; this one stays empty.
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return e.magic, nil },
		RenewCheckInterval: forever, OCSPCheckInterval: forever,
		Logger: zap.NewNop(),
	})
	cache.Stop()
	e.magic = certmagic.New(cache, certmagic.Config{
		Storage: e.storage, Issuers: []certmagic.Issuer{e.authority},
		DisableARI: true, // see task.renewalInfo
		OCSP:       certmagic.OCSPConfig{DisableStapling: true},
		Logger:     zap.NewNop(), // what matters is in the errors it returns
	})
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

const forever = 100 * 365 * 24 * time.Hour

// same reports whether another engine would do what this one does.
func (e *engine) same(other *engine) bool {
	return e.settings == other.settings && bytes.Equal(e.bundle, other.bundle)
}

// want makes names the ones to have certificates for. issuer.mu is held.
func (e *engine) want(names []string) {
	if !e.watching {
		e.watching = true
		e.begin(e.watch)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for name, t := range e.tasks {
		if !wanted[name] {
			t.cancel()
			delete(e.tasks, name)
		}
	}
	for _, name := range names {
		if e.tasks[name] == nil {
			t := newTask(e, name)
			e.tasks[name] = t
			e.begin(t.run)
		}
	}
}

// begin runs f on a goroutine, once the issuer is not held. issuer.mu is held.
func (e *engine) begin(f func()) {
	gate := e.issuer.gate
	e.running.Go(func() {
		select {
		case <-gate:
			f()
		case <-e.ctx.Done():
		}
	})
}

// stop ends all tasks and does not wait for them. issuer.mu is held.
func (e *engine) stop() {
	e.cancel()
	e.issuer.running.Go(func() {
		e.running.Wait()
		e.authority.http.CloseIdleConnections()
	})
}

// shouldLog reports whether a failure is to be logged: names that fail for one reason, such as a CA that is down, share a
// line until the attempt after that one. Status has them all.
func (e *engine) shouldLog(failure string, next time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if now.Before(e.logged[failure]) {
		return false
	}
	for text, until := range e.logged {
		if !now.Before(until) {
			delete(e.logged, text)
		}
	}
	e.logged[failure] = next.Add(-next.Sub(now) / 5) // the attempts of a round are not all at one time
	return true
}
