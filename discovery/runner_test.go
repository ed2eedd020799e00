package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fence orders memory between a test and the goroutines that the bubble's clock wakes: the clock alone does not.
func fence() {
	order.Lock()
	defer order.Unlock()
}

var order sync.Mutex

// script is a source that does as its test says.
type script struct {
	name string
	mu   sync.Mutex
	say  func(ctx context.Context) (List, error)
	n    int
	at   []time.Time
}

func (s *script) String() string { return s.name }

func (s *script) Fetch(ctx context.Context) (List, error) {
	fence()
	s.mu.Lock()
	s.n++
	s.at = append(s.at, time.Now())
	say := s.say
	s.mu.Unlock()
	fence()
	defer fence()
	return say(ctx)
}

func (s *script) set(say func(context.Context) (List, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say = say
}

func (s *script) answer(list []Backend) {
	s.set(func(context.Context) (List, error) { return List{Backends: list}, nil })
}

func (s *script) err(err error) {
	s.set(func(context.Context) (List, error) { return List{}, err })
}

// hosts returns backends 10.0.0.from to 10.0.0.to, both included.
func hosts(from, to int) []Backend {
	var all []Backend
	for i := from; i <= to; i++ {
		a, err := parseAddress(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256))
		if err != nil {
			panic(err)
		}
		all = append(all, Backend{Address: a, Weight: 1})
	}
	return all
}

// rig is a Runner in a bubble of synctest.
type rig struct {
	*Runner
	t       *testing.T
	reports [][]Backend
	stop    func()
}

func exact() Settings {
	s := Defaults()
	s.Jitter, s.Debounce = 0, 0
	return s
}

func start(t *testing.T, set Settings, sources ...Source) *rig {
	t.Helper()
	r, err := New("web", sources, set)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, r)
}

func run(t *testing.T, r *Runner) *rig {
	rg := &rig{Runner: r, t: t}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		r.Run(ctx, func(l []Backend) {
			fence()
			defer fence()
			rg.reports = append(rg.reports, l)
		})
		close(done)
	}()
	rg.stop = func() { cancel(); <-done }
	synctest.Wait()
	return rg
}

// after lets time pass.
func (r *rig) after(d time.Duration) {
	fence()
	time.Sleep(d)
	synctest.Wait()
	fence()
}

func (r *rig) want(state State, backends, reports int) {
	r.t.Helper()
	s := r.Status().Sources[0]
	if s.State != state || s.Backends != backends || len(r.reports) != reports {
		r.t.Fatalf("%v with %d backends, %d reports; want %v, %d, %d: %+v", s.State, s.Backends, len(r.reports), state, backends, reports, s)
	}
}

func (r *rig) events() string {
	var all []string
	for _, e := range r.Status().History {
		all = append(all, e.What)
	}
	return strings.Join(all, " ")
}

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.answer(hosts(1, 4))
		r := start(t, exact(), s)
		defer r.stop()
		r.want(Fresh, 4, 1)

		// The same in another order is nothing new.
		mixed := hosts(1, 4)
		slices.Reverse(mixed)
		s.answer(append(mixed, mixed[0]))
		r.after(10 * time.Second)
		r.want(Fresh, 4, 1)

		// What a backend weighs is.
		heavy := hosts(1, 4)
		heavy[2].Weight = 7
		s.answer(heavy)
		r.after(10 * time.Second)
		r.want(Fresh, 4, 2)
		if e := r.Status().History; e[len(e)-1].Altered != 1 || e[len(e)-1].Added != 0 {
			t.Errorf("%+v", e)
		}

		// Failures: kept, told once, and tried again after 1, 2, 4, 8, 16, 30, 30 seconds.
		s.err(fail(ReasonStatus, errors.New("status 500")))
		r.after(10 * time.Second)
		s.at = nil
		r.after(2 * time.Minute)
		r.want(Failing, 4, 2)
		var waits []int
		for i := 1; i < len(s.at); i++ {
			waits = append(waits, int(s.at[i].Sub(s.at[i-1])/time.Second))
		}
		if fmt.Sprint(waits) != "[2 4 8 16 30 30]" {
			t.Errorf("waited %v seconds", waits)
		}
		st := r.Status().Sources[0]
		if st.Counters.Failed[ReasonStatus] != uint64(st.Failures) || st.Error != "status 500" || st.Age(time.Now()) < 2*time.Minute {
			t.Errorf("%+v", st)
		}
		s.answer(heavy)
		r.after(30 * time.Second)
		r.want(Fresh, 4, 2)
		if got := r.events(); got != "change change failing recovered" {
			t.Error(got)
		}
		if st := r.Status().Sources[0]; st.Error != "" || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestSlowSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.set(func(ctx context.Context) (List, error) {
			<-ctx.Done()
			return List{}, ctx.Err()
		})
		r := start(t, exact(), s)
		defer r.stop()
		r.want(Waiting, 0, 0)
		r.after(5 * time.Second)
		r.want(Failing, 0, 0)
		if st := r.Status().Sources[0]; st.Reason != ReasonTimeout || !strings.Contains(st.Error, "no answer within 5s") {
			t.Errorf("%+v", st)
		}
	})
}

func TestEmptyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.answer(hosts(1, 4))
		r := start(t, exact(), s)
		s.answer(nil)
		r.after(time.Hour)
		r.want(Holding, 4, 1)
		if n := r.Accept(); n != 1 {
			t.Errorf("accepted %d lists", n)
		}
		synctest.Wait()
		r.want(Fresh, 0, 2)
		r.stop()

		// Under Empty, it is like any list that is too short.
		set := exact()
		set.Fail = Empty
		s.answer(hosts(1, 4))
		r = start(t, set, s)
		defer r.stop()
		s.answer(nil)
		r.after(30 * time.Second)
		r.want(Holding, 4, 1)
		r.after(10 * time.Second)
		r.want(Fresh, 0, 2)
		s.answer(hosts(1, 4))
		r.after(10 * time.Second)
		r.want(Fresh, 4, 3)
		s.err(errors.New("gone"))
		r.after(10 * time.Second)
		r.want(Failing, 0, 4)
	})
}

func TestSuddenShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.answer(hosts(1, 100))
		r := start(t, exact(), s)
		defer r.stop()
		s.answer(hosts(1, 50)) // half is enough
		r.after(10 * time.Second)
		r.want(Fresh, 50, 2)
		s.answer(hosts(1, 24))
		r.after(10 * time.Second)
		r.want(Holding, 50, 2)
		s.err(errors.New("a failure confirms nothing, and forgets nothing"))
		r.after(10 * time.Second)
		s.answer(hosts(2, 25))
		r.after(time.Second)
		r.want(Holding, 50, 2)
		s.answer(hosts(1, 3)) // still falling: counted anew
		r.after(10 * time.Second)
		r.after(20 * time.Second)
		r.want(Holding, 50, 2)
		r.after(10 * time.Second)
		r.want(Fresh, 3, 3)
		if got := r.events(); got != "change change held failing recovered held change" {
			t.Error(got)
		}
		if c := r.Status().Sources[0].Counters; c.Held != 5 || c.Changed != 3 {
			t.Errorf("%+v", c)
		}
	})
}

func TestOldLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.answer(hosts(1, 4))
		set := exact()
		set.MaxAge = time.Minute
		set.Static = hosts(9, 9)
		r := start(t, set, s)
		defer r.stop()
		s.err(errors.New("gone"))
		r.after(59 * time.Second)
		r.want(Failing, 4, 1)
		r.after(2 * time.Second)
		r.want(Stale, 0, 2)
		if l := r.List(); len(l) != 1 {
			t.Errorf("static backends went with the old list: %v", l)
		}
		r.after(time.Minute)
		r.want(Stale, 0, 2)
		s.answer(hosts(1, 4))
		r.after(time.Minute)
		r.want(Fresh, 4, 3)
	})
}

func TestDebounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := exact()
		set.Debounce, set.Interval = time.Second, 100*time.Millisecond
		s := &script{name: "test"}
		n := 0
		s.set(func(context.Context) (List, error) { n++; return List{Backends: hosts(1, 10+n)}, nil })
		r := start(t, set, s)
		defer r.stop()
		r.after(10*time.Second + 50*time.Millisecond)
		if len(r.reports) < 8 || len(r.reports) > 10 {
			t.Errorf("%d reports of 100 changes in 10 s", len(r.reports))
		}
		// There and back again is nothing new.
		s.answer(r.List())
		r.after(2 * time.Second)
		before := len(r.reports)
		s.answer(hosts(1, 200))
		r.after(100 * time.Millisecond)
		s.answer(r.List())
		r.after(3 * time.Second)
		if len(r.reports) != before {
			t.Errorf("%d reports, were %d", len(r.reports), before)
		}
	})
}

func TestSeveralSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &script{name: "a"}, &script{name: "b"}
		mark := func(l []Backend, zone string) []Backend {
			for i := range l {
				l[i].Zone = zone
			}
			return l
		}
		a.answer(mark(hosts(2, 4), "a"))
		b.answer(mark(hosts(3, 6), "b"))
		set := exact()
		set.Static = mark(hosts(1, 2), "static")
		r := start(t, set, a, b)
		defer r.stop()
		zones := func() string {
			var z []string
			for _, b := range r.List() {
				z = append(z, b.Zone)
			}
			return strings.Join(z, " ")
		}
		if got := zones(); got != "static static a a b b" {
			t.Error(got)
		}
		a.answer(mark(hosts(2, 3), "a"))
		r.after(10 * time.Second)
		if got := zones(); got != "static static a b b b" {
			t.Error(got)
		}
		if _, err := New("web", []Source{a, a}, set); err == nil {
			t.Error("the same source twice")
		}
	})
}

func TestTTLDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.set(func(context.Context) (List, error) { return List{Backends: hosts(1, 2), TTL: 3 * time.Second}, nil })
		r := start(t, exact(), s)
		defer r.stop()
		r.after(30*time.Second + time.Millisecond)
		if s.n != 11 {
			t.Errorf("%d fetches in 30 s", s.n)
		}
		r.Refresh()
		synctest.Wait()
		if s.n != 12 {
			t.Errorf("%d fetches after a refresh", s.n)
		}
	})
}

func TestTooMuchAndNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		s.answer(hosts(1, 4))
		set := exact()
		set.MaxBackends = 10
		r := start(t, set, s)
		defer r.stop()
		s.answer(hosts(1, 11))
		r.after(10 * time.Second)
		r.want(Failing, 4, 1)
		if st := r.Status().Sources[0]; st.Reason != ReasonTooLarge {
			t.Errorf("%+v", st)
		}
		bad := hosts(1, 4)
		bad[1].SNI = "a\nb\x1b"
		s.answer(bad)
		r.after(10 * time.Second)
		if st := r.Status().Sources[0]; st.Reason != ReasonDecode || strings.ContainsAny(st.Error, "\n\x1b") {
			t.Errorf("%+v", st)
		}
	})
}

func TestSavedLists(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &script{name: "test"}
		full := hosts(1, 3)
		full[0].Labels = map[string]string{"rack": "7"}
		full[0].SNI, full[0].Zone, full[0].MaxConnections, full[0].Priority, full[0].Weight = "a.test", "eu", 9, 2, 0
		s.answer(full)
		set := exact()
		set.SaveTo = filepath.Join(dir, "web.json")
		set.MaxAge = time.Hour
		r := start(t, set, s)
		r.stop()
		if info, err := os.Stat(set.SaveTo); err != nil || info.Mode() != 0o600 {
			t.Fatal(info, err)
		}

		// The next life starts with it, though the source is down; and does not believe an empty answer.
		s.err(errors.New("down"))
		again, err := New("web", []Source{s}, set)
		if err != nil {
			t.Fatal(err)
		}
		if !same(again.List(), full) {
			t.Fatalf("%+v", again.List())
		}
		r = run(t, again)
		r.want(Failing, 3, 0)
		s.answer(nil)
		r.after(time.Minute)
		r.want(Holding, 3, 0)
		r.stop()

		// So does a Runner that replaces another.
		set.SaveTo = ""
		next, err := New("web", []Source{s, &script{name: "other"}}, set)
		if err != nil {
			t.Fatal(err)
		}
		next.Inherit(again)
		if !same(next.List(), full) || next.Status().Sources[0].State != Restored {
			t.Fatalf("%+v", next.List())
		}

		// Too old, of another source, of another pool, broken: not used.
		set.SaveTo = filepath.Join(dir, "web.json")
		time.Sleep(time.Hour)
		for _, c := range []struct{ pool, source, text, err string }{
			{pool: "web", source: "test"},
			{pool: "web", source: "other"},
			{pool: "else", source: "test", err: `want "else"`},
			{pool: "web", source: "test", text: "{", err: "EOF"},
			{pool: "web", source: "test", text: `{"version":2,"pool":"web"}`, err: "version"},
			{pool: "web", source: "test", text: `{"version":1,"pool":"web","sources":[{"source":"test","good":"2000-01-01T01:00:00Z","backends":[{"address":"x"}]}]}`, err: "address"},
		} {
			if c.text != "" {
				if err := os.WriteFile(set.SaveTo, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := New(c.pool, []Source{&script{name: c.source}}, set)
			if err != nil {
				t.Fatal(err)
			}
			if st := r.Status(); len(r.List()) != 0 || (c.err == "") != (st.SaveError == "") || !strings.Contains(st.SaveError, c.err) {
				t.Errorf("%+v: %+v", c, st)
			}
		}
	})
	left, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// pusher is a Watcher that passes on what its test sends.
type pusher struct {
	name  string
	lists chan List
	fail  chan error
	n     int
}

func (p *pusher) String() string                      { return p.name }
func (p *pusher) Fetch(context.Context) (List, error) { panic("a watcher is watched") }
func (p *pusher) Watch(ctx context.Context, report func(List)) error {
	p.n++
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-p.lists:
			report(l)
		case err := <-p.fail:
			return err
		}
	}
}

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pusher{name: "test", lists: make(chan List), fail: make(chan error)}
		set := exact()
		set.MaxAge = time.Minute
		r := start(t, set, p)
		defer r.stop()
		// No first list within the timeout: asked again after the back-off.
		r.after(5*time.Second + time.Millisecond)
		r.want(Failing, 0, 0)
		r.after(time.Second)
		p.lists <- List{Backends: hosts(1, 10)}
		synctest.Wait()
		r.want(Fresh, 10, 1)
		// A stream that lives keeps its list young, and confirms what is held back.
		r.after(time.Hour)
		r.want(Fresh, 10, 1)
		p.lists <- List{Backends: hosts(1, 2)}
		synctest.Wait()
		r.want(Holding, 10, 1)
		r.after(30 * time.Second)
		r.want(Fresh, 2, 2)
		// Its end is a failure.
		n := p.n
		p.fail <- nil
		synctest.Wait()
		r.want(Failing, 2, 2)
		r.after(time.Second)
		p.lists <- List{Backends: hosts(1, 3)}
		synctest.Wait()
		r.want(Fresh, 3, 3)
		r.Refresh()
		synctest.Wait()
		if p.n != n+2 {
			t.Errorf("%d streams, were %d", p.n, n)
		}
		p.lists <- List{Backends: hosts(1, 3)}
		synctest.Wait()
		r.want(Fresh, 3, 3)
	})
}

// TestModel: whatever a source says, in whatever order, the pool keeps to its policy.
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { model(t, rand.New(rand.NewPCG(seed, 4))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func model(t *testing.T, rnd *rand.Rand) {
	set := exact()
	set.Fail = FailPolicy(rnd.IntN(2))
	set.MinShare = []int{0, 30, 50, 100}[rnd.IntN(4)]
	set.Confirm = rnd.IntN(4)
	set.Jitter = 0.1
	s := &script{name: "test"}
	var failed bool
	short := 0 // answers in a row, failures aside, that are too short beside the list in use
	var r *rig
	s.set(func(ctx context.Context) (List, error) {
		inUse := 0
		if r != nil {
			inUse = len(r.List())
		}
		n := 0
		failed = false
		switch rnd.IntN(6) {
		case 0:
			failed = true
			return List{}, errors.New("error")
		case 1:
			failed = true
			<-ctx.Done()
			return List{}, ctx.Err()
		case 2: // empty
		case 3:
			time.Sleep(time.Duration(rnd.Int64N(int64(set.Timeout - 1))))
			n = 1 + rnd.IntN(20)
		default:
			n = []int{5, 40}[rnd.IntN(2)]
		}
		if inUse > 0 && (n*100 < inUse*set.MinShare || n == 0) {
			short++
		} else {
			short = 0
		}
		return List{Backends: hosts(1, n)}, nil
	})
	r = start(t, set, s)
	defer r.stop()
	for r.Status().Sources[0].Tried.IsZero() {
		r.after(50 * time.Millisecond)
	}
	last := len(r.List())
	short = 0
	for range 150 {
		before := s.n
		for s.n == before {
			r.after(50 * time.Millisecond)
		}
		for r.Status().Sources[0].Tried.Before(s.at[len(s.at)-1]) {
			r.after(50 * time.Millisecond)
		}
		now := len(r.List())
		switch {
		case last > 0 && now == 0 && set.Fail == Keep:
			t.Errorf("emptied under keep")
		case last > 0 && now == 0 && !failed && set.MinShare > 0 && short < set.Confirm+1:
			t.Errorf("emptied by %d answers of %d", short, set.Confirm+1)
		case now < last && !failed && now*100 < last*set.MinShare && short < set.Confirm+1:
			t.Errorf("%d from %d backends after %d answers of %d", now, last, short, set.Confirm+1)
		case failed && set.Fail == Keep && now != last:
			t.Errorf("a failure under keep made %d of %d", now, last)
		}
		if t.Failed() {
			t.Logf("%+v", r.Status())
			return
		}
		if now != last {
			short = 0
		}
		last = now
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 200 {
		h.add(Event{Length: i})
	}
	all := h.all()
	if len(all) != maxHistory || all[0].Length != 200-maxHistory || all[maxHistory-1].Length != 199 {
		t.Errorf("%v", all)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	if _, err := New("web", nil, Settings{}); err == nil || !strings.Contains(err.Error(), "interval: got 0s; want 100ms or more") {
		t.Error(err)
	}
	s := Defaults()
	s.Static = []Backend{{}}
	if _, err := New("web", nil, s); err == nil || !strings.Contains(err.Error(), "static") {
		t.Error(err)
	}
}

func FuzzSaved(f *testing.F) {
	f.Add([]byte(`{"version":1,"pool":"web","sources":[{"source":"a","good":"2026-01-01T00:00:00Z","backends":[{"address":"10.0.0.1:80","weight":1}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeSaved(b, "web")
		if err != nil {
			return
		}
		for _, s := range all {
			if list, err := s.list(); err == nil {
				for i := range list {
					if err := list[i].Check(); err != nil {
						t.Error(err)
					}
				}
			}
		}
	})
}
