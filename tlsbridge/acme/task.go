package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"awe4lb/tlsbridge"
)

// checkInterval is how often a task that has nothing to do looks at the folder (another process may have renewed) and asks
// the CA when it wants the certificate renewed, if it said that the answer may change.
const checkInterval = time.Hour

// infoTimeout is how long the CA may take to say when a certificate should be renewed.
const infoTimeout = 15 * time.Second

// maxErrorLength bounds what a CA can have us repeat, in bytes.
const maxErrorLength = 600

// task gets and renews the certificate for one name.
type task struct {
	// Set once, never changed.
	engine *engine
	ctx    context.Context
	cancel context.CancelFunc
	now    chan struct{} // holds one: renew, due or not

	// Owned by the task's goroutine.
	own  *tlsbridge.Certificate // the newest from this engine's CA, or nil
	info acme.RenewalInfo       // what the CA said about own
	calm time.Time              // the CA's word does not count before this time

	// Guarded by mu.
	mu     sync.Mutex
	status Status
}

// newTask returns the task for a name, with what the folder has for it in use already. issuer.mu is held.
func newTask(e *engine, name string) *task {
	t := &task{engine: e, now: make(chan struct{}, 1), status: Status{Name: name, State: Wanted}}
	t.ctx, t.cancel = context.WithCancel(e.ctx)
	best := e.issuer.Certificate(name) // of the engine before
	own, err := e.storage.certificate(t.ctx, e.authority.key, name)
	if err == nil {
		t.own, t.info = own, e.storage.renewalInfo(t.ctx, e.authority.key, name)
		t.status.State = Valid
	} else if !errors.Is(err, fs.ErrNotExist) {
		e.issuer.log.Warn("a certificate in acme.storage is of no use", "name", name, "directory", e.settings.Directory, "error", err)
	}
	switch usable := own != nil && time.Now().Before(own.NotAfter); {
	case usable || best == nil && own != nil:
		best = own
	case best == nil:
		best = e.storage.certificateOfOthers(t.ctx, e.authority.key, name)
	}
	if best != nil {
		e.issuer.publishLocked(name, best)
	}
	return t
}

// renewNow has the task make an attempt at once.
func (t *task) renewNow() {
	select {
	case t.now <- struct{}{}:
	default:
	}
}

func (t *task) report() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

func (t *task) name() string { return t.status.Name } // set once

// run is the task's goroutine.
func (t *task) run() {
	for forced := false; ; {
		timer := time.NewTimer(time.Until(t.attend(forced)))
		select {
		case <-t.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			forced = false
		case <-t.now:
			timer.Stop()
			forced = true
		}
	}
}

// attend does what is to be done now and returns when to look again.
func (t *task) attend(forced bool) time.Time {
	t.look()
	due := t.due()
	if !forced && time.Now().Before(due) {
		t.rest(due)
		t.renewalInfo()
		due = t.due()
	}
	if !forced && time.Now().Before(due) {
		t.rest(due)
		if check := time.Now().Add(checkInterval); check.Before(due) {
			return check
		}
		return due
	}
	select {
	case t.engine.slots <- struct{}{}:
		defer func() { <-t.engine.slots }()
	case <-t.ctx.Done():
		return time.Time{}
	}
	t.begin()
	err := t.obtain(forced)
	if t.ctx.Err() != nil {
		return time.Time{} // no longer wanted: the outcome is nobody's
	}
	if err == nil && !time.Now().Before(t.due()) {
		err = fmt.Errorf("the CA's new certificate (%v to %v) is due for renewal already: is the clock right?",
			t.own.Leaf().NotBefore, t.own.NotAfter)
	}
	if err != nil {
		return t.fail(err)
	}
	t.succeed()
	return time.Now() // to see when the new one is due
}

// due returns when the certificate is due, in the past if there is none.
func (t *task) due() time.Time {
	if t.own == nil {
		return time.Time{}
	}
	due := t.own.Leaf().NotAfter.Add(-life(t.own) / 3)
	at := t.info.SelectedTime
	if at.IsZero() {
		return due
	}
	if at.Before(t.calm) {
		at = t.calm
	}
	if at.Before(due) {
		return at
	}
	return due
}

// life returns how long a certificate is valid from beginning to end.
func life(c *tlsbridge.Certificate) time.Duration { return c.Leaf().NotAfter.Sub(c.Leaf().NotBefore) }

// renewalInfo asks the CA when it wants the certificate renewed, if it is time to ask. A CA that does not tell is no
// mistake: two thirds of the certificate's life are the answer then.
func (t *task) renewalInfo() {
	unknown := t.info.SelectedTime.IsZero()
	if !unknown && !t.info.NeedsRefresh() {
		return
	}
	select {
	case t.engine.questions <- struct{}{}:
		defer func() { <-t.engine.questions }()
	case <-t.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, infoTimeout)
	defer cancel()
	info, err := t.engine.authority.renewalInfo(ctx, t.own.Leaf())
	if err == nil && (unknown || !info.SameWindow(t.info)) {
		t.info = info
	} else if err == nil {
		t.info.RetryAfter = info.RetryAfter // the time selected before stands
	}
}

// look takes the certificate in the folder, which another process may have put there, and hands it out.
func (t *task) look() {
	c, err := t.engine.storage.certificate(t.ctx, t.engine.authority.key, t.name())
	if err == nil {
		t.take(c)
	}
}

// take makes c, from this engine's CA, the certificate in use. One that is not valid yet, by our clock, waits as long as
// there is another that is.
func (t *task) take(c *tlsbridge.Certificate) {
	if t.own == nil || t.own.Fingerprint() != c.Fingerprint() {
		t.own, t.info = c, t.engine.storage.renewalInfo(t.ctx, t.engine.authority.key, t.name())
		t.calm = time.Now().Add(min(time.Hour, life(c)/10)) // a CA that always wants renewals does not get one order after the other
	}
	now := time.Now()
	current := t.engine.issuer.Certificate(t.name())
	if now.Before(c.Leaf().NotBefore) && current != nil && now.Before(current.NotAfter) {
		return
	}
	if !now.Before(c.NotAfter) && current != nil && now.Before(current.NotAfter) {
		return // ours has expired, that of another CA has not
	}
	t.engine.issuer.publish(t.ctx, t.name(), c)
}

// obtain gets a new certificate and takes it, unless another process did so while we waited for it.
func (t *task) obtain(forced bool) error {
	e := t.engine
	lock := "awe4lb_order_" + t.name()
	if err := e.storage.Lock(t.ctx, lock); err != nil {
		return fmt.Errorf("acme.storage: %w", err)
	}
	defer e.storage.Unlock(t.ctx, lock) //nolint:errcheck // closes a file
	switch c, err := e.storage.certificate(t.ctx, e.authority.key, t.name()); {
	case err == nil:
		if t.own == nil || c.Fingerprint() != t.own.Fingerprint() {
			t.take(c)
			if forced || time.Now().Before(t.due()) {
				return nil
			}
		}
	case !errors.Is(err, fs.ErrNotExist): // and nobody is writing it now
		if err := e.storage.discard(t.ctx, e.authority.key, t.name()); err != nil {
			return fmt.Errorf("acme.storage: %w", err)
		}
	}
	ctx := t.ctx
	if t.own != nil {
		ctx = context.WithValue(ctx, replacesKey{}, t.own.Leaf())
	}
	// certmagic obtains where there is nothing to renew.
	if err := e.magic.RenewCertSync(ctx, t.name(), true); err != nil {
		return err
	}
	c, err := e.storage.certificate(t.ctx, e.authority.key, t.name())
	if err != nil {
		return fmt.Errorf("the CA's certificate is of no use: %w", err)
	}
	e.issuer.obtained.Add(1)
	t.take(c)
	e.issuer.log.Info("certificate obtained", "name", t.name(), "not_after", c.NotAfter, "directory", e.settings.Directory)
	return nil
}

// begin, rest, succeed and fail are the transitions of State.
func (t *task) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.State, t.status.LastAttempt, t.status.NextAttempt = Ordering, time.Now(), time.Time{}
}

func (t *task) rest(due time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.State, t.status.NextAttempt, t.status.LastError, t.status.Failures = Valid, due, "", 0
}

func (t *task) succeed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.State, t.status.LastError, t.status.Failures = Valid, "", 0
}

// fail returns when the next attempt is.
func (t *task) fail(err error) time.Time {
	e := t.engine
	e.issuer.failed.Add(1)
	text := explain(err, &e.settings)
	text = text[:min(len(text), maxErrorLength)]
	t.mu.Lock()
	t.status.Failures++
	wait := e.issuer.backoff(t.status.Failures, answered(err))
	if rateLimited(err) {
		wait = max(wait, rateLimitedWait)
	}
	next := time.Now().Add(wait)
	t.status.State, t.status.LastError, t.status.NextAttempt = Failing, text, next
	failures := t.status.Failures
	t.mu.Unlock()

	if !e.shouldLog(text, next) {
		return next
	}
	attrs := []any{"name", t.name(), "error", text, "failures", failures, "next_attempt", next}
	if c := e.issuer.Certificate(t.name()); c != nil {
		attrs = append(attrs, "serving_until", c.NotAfter)
	}
	e.issuer.log.Warn("no certificate from the CA", attrs...)
	return next
}
