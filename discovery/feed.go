package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// feed is one source of a Runner: the goroutine that asks it, and what came of it.
type feed struct {
	// Set once, never changed.
	r      *Runner
	source Source
	name   string
	wake   chan struct{} // ask at once

	// Guarded by r.mu.
	list    []Backend // in use, normalised
	guard   guard
	state   State
	since   time.Time
	good    time.Time
	tried   time.Time
	fails   int // in a row
	err     error
	skipped string
	count   Counters
}

var (
	errSilent  = errors.New("no list within the timeout")
	errEnded   = errors.New("the source has ended its stream")
	errRefresh = errors.New("refresh")
)

// run asks until ctx is done.
func (f *feed) run(ctx context.Context) {
	ask := f.fetch
	if w, ok := f.source.(Watcher); ok {
		ask = func(ctx context.Context) time.Duration { return f.watch(ctx, w) }
	}
	for ctx.Err() == nil {
		t := time.NewTimer(ask(ctx))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-f.wake:
		}
		t.Stop()
	}
}

// fetch asks once and returns how long to wait.
func (f *feed) fetch(ctx context.Context) time.Duration {
	one, cancel := context.WithTimeout(ctx, f.r.set.Timeout)
	list, err := f.source.Fetch(one)
	if err != nil && one.Err() != nil && ctx.Err() == nil {
		err = fail(ReasonTimeout, fmt.Errorf("no answer within %v: %w", f.r.set.Timeout, err))
	}
	cancel()
	if ctx.Err() != nil {
		return 0
	}
	if f.take(list, err) {
		if list.TTL > 0 {
			return f.jitter(list.TTL)
		}
		return f.jitter(f.r.set.Interval)
	}
	return f.backoff()
}

// watch follows a stream to its end and returns how long to wait before the next. While it lives, its latest list counts
// as said again every Interval: that confirms what is held back, and keeps what is in use from growing stale.
func (f *feed) watch(parent context.Context, w Watcher) time.Duration {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	lists, ended := make(chan List), make(chan error, 1)
	go func() {
		ended <- w.Watch(ctx, func(l List) {
			select {
			case lists <- l:
			case <-ctx.Done():
			}
		})
	}()
	silent := time.AfterFunc(f.r.set.Timeout, func() { cancel(fail(ReasonTimeout, errSilent)) })
	defer silent.Stop()
	again := time.NewTicker(f.r.set.Interval)
	defer again.Stop()
	var latest *List
	for {
		select {
		case l := <-lists:
			silent.Stop()
			latest = &l
			f.take(l, nil)
		case <-again.C:
			if latest != nil && ctx.Err() == nil {
				f.take(List{Backends: latest.Backends, TTL: latest.TTL}, nil)
			}
		case <-f.wake:
			cancel(errRefresh)
		case err := <-ended:
			cause := context.Cause(ctx)
			switch {
			case parent.Err() != nil, cause == errRefresh:
				return 0
			case cause != nil:
				err = cause
			case err == nil:
				err = errEnded
			}
			f.take(List{}, err)
			return f.backoff()
		}
	}
}

func (f *feed) jitter(d time.Duration) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*f.r.set.Jitter*float64(d))
}

// backoff returns the wait after as many failures as there were.
func (f *feed) backoff() time.Duration {
	f.r.mu.Lock()
	n := f.fails
	f.r.mu.Unlock()
	d := f.r.set.RetryMin
	for ; n > 1 && d < f.r.set.RetryMax; n-- {
		d *= 2
	}
	return f.jitter(min(d, f.r.set.RetryMax))
}

// take draws the conclusions from an answer and reports whether it was one.
func (f *feed) take(list List, err error) bool {
	next := []Backend(nil)
	if err == nil {
		next, err = f.accept(list)
	}
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.tried.IsZero() {
		defer r.wake()
	}
	f.tried = time.Now()
	if err != nil {
		f.failed(err)
		return false
	}
	if f.fails > 0 {
		r.event(Event{What: EventRecovered, Source: f.name, Detail: fmt.Sprintf("after %d failures", f.fails)})
	}
	f.fails, f.err = 0, nil
	f.skipped = list.Why
	f.count.Skipped += uint64(list.Skipped)
	if !f.guard.judge(f.list, next) {
		f.hold(next)
		return true
	}
	f.use(next)
	return true
}

// accept is what a list must pass whatever its source is.
func (f *feed) accept(list List) ([]Backend, error) {
	if n := len(list.Backends); n > f.r.set.MaxBackends {
		return nil, fail(ReasonTooLarge, fmt.Errorf("%d backends; want at most %d", n, f.r.set.MaxBackends))
	}
	for i := range list.Backends {
		if err := list.Backends[i].Check(); err != nil {
			return nil, fail(ReasonDecode, fmt.Errorf("backend %d (%s): %w", i+1, list.Backends[i].Address, err))
		}
	}
	return normalise(list.Backends), nil
}

// use puts a list into use. A transition to FRESH.
func (f *feed) use(next []Backend) {
	if same(f.list, next) {
		f.count.Unchanged++
	} else {
		f.count.Changed++
		f.set(next)
	}
	f.good = f.tried
	f.become(Fresh)
	if age := f.r.set.MaxAge; age > 0 && f.r.set.SaveTo != "" && f.tried.Sub(f.r.savedAt) > age/4 {
		f.r.unsaved = true // the file says how old the list is
		f.r.poke()
	}
}

// hold leaves everything as it is. A transition to HOLDING.
func (f *feed) hold(next []Backend) {
	f.count.Held++
	if f.guard.confirmed == 0 {
		f.r.event(Event{What: EventHeld, Source: f.name, Length: len(next),
			Detail: fmt.Sprintf("%d backends where %d are in use", len(next), len(f.list))})
	}
	f.become(Holding)
}

// failed counts, and lets the fail policy speak. A transition to FAILING.
func (f *feed) failed(err error) {
	if f.count.Failed == nil {
		f.count.Failed = map[string]uint64{}
	}
	reason := ReasonOf(err)
	f.count.Failed[reason]++
	if f.fails == 0 || ReasonOf(f.err) != reason {
		f.r.event(Event{What: EventFailing, Source: f.name, Detail: clip(err.Error())})
	}
	f.fails++
	f.err = err
	if f.r.set.Fail == Empty {
		f.guard.release()
		f.set(nil)
	}
	if f.state != Stale {
		f.become(Failing)
	}
}

// expire drops a list that is too old, and returns when to look again; zero = not before something else happens. A
// transition to STALE.
func (f *feed) expire(now time.Time) time.Time {
	if f.r.set.MaxAge == 0 || len(f.list) == 0 {
		return time.Time{}
	}
	if end := f.good.Add(f.r.set.MaxAge); now.Before(end) {
		return end
	}
	f.count.Stale++
	f.r.event(Event{What: EventStale, Source: f.name, Length: len(f.list),
		Detail: fmt.Sprintf("the source has not confirmed it for %v", f.r.set.MaxAge)})
	f.guard.release()
	f.set(nil)
	f.become(Stale)
	return time.Time{}
}

// restore takes a list of an earlier time. A transition to RESTORED.
func (f *feed) restore(list []Backend, good time.Time) {
	f.list, f.good = list, good
	f.become(Restored)
	f.r.event(Event{What: EventRestored, Source: f.name, Length: len(list), Detail: "said " + good.UTC().Format(time.RFC3339)})
}

// release puts a held list into use because an operator says so. A transition to FRESH.
func (f *feed) release() bool {
	if !f.guard.holding {
		return false
	}
	held := f.guard.release()
	f.r.event(Event{What: EventReleased, Source: f.name, Length: len(held)})
	f.use(held)
	return true
}

func (f *feed) set(list []Backend) {
	if !same(f.list, list) {
		f.list = list
		f.r.unsaved = true
		f.r.poke()
	}
}

func (f *feed) become(s State) {
	if f.state != s {
		f.state, f.since = s, time.Now()
	}
}

func (f *feed) status() SourceStatus {
	s := SourceStatus{
		Name: f.name, State: f.state, Since: f.since, Backends: len(f.list), Held: len(f.guard.held), Confirmed: f.guard.confirmed,
		Good: f.good, Tried: f.tried, Failures: f.fails, Skipped: f.skipped, Counters: f.count,
	}
	s.Counters.Failed = make(map[string]uint64, len(f.count.Failed))
	for k, v := range f.count.Failed {
		s.Counters.Failed[k] = v
	}
	if f.err != nil {
		s.Error, s.Reason = clip(f.err.Error()), ReasonOf(f.err)
	}
	return s
}

// clip keeps an error that quotes strangers to a size that pages and logs can bear.
func clip(s string) string {
	const most = 500
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
