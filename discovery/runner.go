package discovery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Runner keeps the list of one pool: what its sources say, as far as it is to be believed.
type Runner struct {
	// Set once, never changed.
	pool  string
	set   Settings
	feeds []*feed       // in the order of precedence
	dirty chan struct{} // a list has changed
	news  chan struct{} // there is something to tell, or a source has been tried for the first time
	first chan struct{} // see Tried

	// Guarded by mu.
	mu       sync.Mutex
	reported []Backend
	changes  uint64
	changed  time.Time
	unsaved  bool
	savedAt  time.Time
	saveErr  error
	history  history
	untold   []Event // since Run last told; at most as many as in history
}

// New returns a Runner for a pool. Where sources have the same address, the earlier one is right, and static backends
// before all. Saved lists that cannot be read are no error: Status tells. Nothing is asked before Run.
func New(pool string, sources []Source, set Settings) (*Runner, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	set.Static = normalise(set.Static)
	r := &Runner{pool: pool, set: set, dirty: make(chan struct{}, 1), news: make(chan struct{}, 1), first: make(chan struct{})}
	now := time.Now()
	for _, s := range sources {
		f := &feed{r: r, source: s, name: s.String(), wake: make(chan struct{}, 1), since: now}
		f.guard = guard{share: set.MinShare, confirm: set.Confirm, keepEmpty: set.Fail == Keep}
		if slices.ContainsFunc(r.feeds, func(o *feed) bool { return o.name == f.name }) {
			return nil, fmt.Errorf("the source %s is there twice", f.name)
		}
		r.feeds = append(r.feeds, f)
	}
	if set.SaveTo != "" {
		all, err := readSaved(set.SaveTo, pool)
		r.noteSaved(err)
		r.restore(all)
	}
	r.reported = r.merged()
	r.takePoke()
	return r, nil
}

// Inherit takes over the lists of the Runner that r replaces, source by source of the same name. Call it before Run, once
// old has ended.
func (r *Runner) Inherit(old *Runner) {
	all := old.saved()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restore(all)
	r.reported = r.merged()
	r.takePoke()
}

// restore hands lists of an earlier time to the sources they are from, unless they are too old.
func (r *Runner) restore(all []saved) {
	now := time.Now()
	for _, s := range all {
		i := slices.IndexFunc(r.feeds, func(f *feed) bool { return f.name == s.Source })
		if i < 0 || len(s.Backends) == 0 || len(s.Backends) > r.set.MaxBackends || r.set.MaxAge > 0 && now.Sub(s.Good) >= r.set.MaxAge {
			continue
		}
		list, err := s.list()
		if err != nil {
			r.noteSaved(err)
			continue
		}
		if s.Good.After(now) {
			s.Good = now // the clock was set back
		}
		r.feeds[i].restore(list, s.Good)
	}
}

// List returns the list as it was last reported; before Run, what is known without asking: static backends and those
// saved to disk. It is normalised, and not to be changed. Safe from any goroutine.
func (r *Runner) List() []Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reported
}

// Run asks the sources until ctx is done and calls report, from one goroutine, with each list that differs from the one
// before it; the first is compared with what List returned. The list is normalised, and not to be changed. Returns when
// everything it started has ended; call it once.
func (r *Runner) Run(ctx context.Context, report func([]Backend)) {
	ctx = confine(ctx, r.set.Within)
	var feeds sync.WaitGroup
	for _, f := range r.feeds {
		feeds.Go(func() { f.run(ctx) })
	}
	var collect, expiry <-chan time.Time
	tried := false
	for done := false; !done; {
		r.tell()
		if !tried && collect == nil && r.allTried() {
			tried = true
			close(r.first)
		}
		if at := r.expire(); !at.IsZero() {
			expiry = time.After(time.Until(at))
		} else {
			expiry = nil
		}
		select {
		case <-ctx.Done():
			done = true
		case <-expiry:
		case <-r.news:
		case <-r.dirty:
			if collect == nil {
				collect = time.After(r.set.Debounce)
			}
		case <-collect:
			collect = nil
			if list, ok := r.settle(); ok {
				report(list)
			}
			r.save()
		}
	}
	feeds.Wait()
	r.save()
	r.tell()
}

// Tried returns a channel that is closed once every source was tried, and what came of it was reported.
func (r *Runner) Tried() <-chan struct{} { return r.first }

// allTried reports whether every source was tried, and nothing of that is still to be collected.
func (r *Runner) allTried() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty) == 0 && !slices.ContainsFunc(r.feeds, func(f *feed) bool { return f.tried.IsZero() })
}

// tell has whoever wants to know hear of what has happened.
func (r *Runner) tell() {
	r.mu.Lock()
	events := r.untold
	r.untold = nil
	r.mu.Unlock()
	if r.set.Tell == nil {
		return
	}
	for _, e := range events {
		r.set.Tell(e)
	}
}

// Refresh asks every source now. Safe from any goroutine.
func (r *Runner) Refresh() {
	for _, f := range r.feeds {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// Accept puts the lists into use that are held back, and returns how many there were. Safe from any goroutine.
func (r *Runner) Accept() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, f := range r.feeds {
		if f.release() {
			n++
		}
	}
	return n
}

// Status returns how things are. Safe from any goroutine.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Pool: r.pool, Backends: len(r.reported), Static: len(r.set.Static), Changes: r.changes, Changed: r.changed,
		Saved: r.savedAt, History: r.history.all(),
	}
	if r.saveErr != nil {
		s.SaveError = clip(r.saveErr.Error())
	}
	for _, f := range r.feeds {
		s.Sources = append(s.Sources, f.status())
	}
	return s
}

// settle makes what is known now the reported list and returns it, unless it is the same.
func (r *Runner) settle() ([]Backend, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.merged()
	if same(r.reported, next) {
		return nil, false
	}
	e := Event{What: EventChange, Length: len(next)}
	e.Added, e.Removed, e.Altered = difference(r.reported, next)
	r.event(e)
	r.reported = next
	r.changes++
	r.changed = time.Now()
	return next, true
}

// expire lets lists go that are too old, and returns when the next will be.
func (r *Runner) expire() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first time.Time
	now := time.Now()
	for _, f := range r.feeds {
		if at := f.expire(now); !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// save saves the lists if it is not up to date. A failure is told, and tried again with the next change.
func (r *Runner) save() {
	if r.set.SaveTo == "" {
		return
	}
	r.mu.Lock()
	need := r.unsaved
	r.unsaved = false
	r.mu.Unlock()
	if !need {
		return
	}
	err := writeSaved(r.set.SaveTo, r.pool, r.saved())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteSaved(err)
	if err == nil {
		r.savedAt = time.Now()
	} else {
		r.unsaved = true
	}
}

func (r *Runner) saved() []saved {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []saved
	for _, f := range r.feeds {
		if !f.good.IsZero() {
			all = append(all, toSaved(f.name, f.good, f.list))
		}
	}
	return all
}

// The rest is called with mu held.

func (r *Runner) merged() []Backend {
	lists := [][]Backend{r.set.Static}
	for _, f := range r.feeds {
		lists = append(lists, f.list)
	}
	return merge(lists...)
}

func (r *Runner) noteSaved(err error) {
	if err != nil && r.saveErr == nil {
		r.event(Event{What: EventSave, Detail: clip(err.Error())})
	}
	r.saveErr = err
}

func (r *Runner) event(e Event) {
	e.Time = time.Now()
	r.history.add(e)
	if len(r.untold) < maxHistory {
		r.untold = append(r.untold, e)
	}
	r.wake()
}

// wake makes Run look without a list that has changed.
func (r *Runner) wake() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// poke makes Run look.
func (r *Runner) poke() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

func (r *Runner) takePoke() {
	select {
	case <-r.dirty:
	default:
	}
}
