//go:build real

package real

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// world is a server with backends in it, as its operators see it.
type world interface {
	source() discovery.Source
	add(n, weight int) (entry string) // and returns what it is to be in a list
	change(n, weight int) (entry string)
	remove(n int)
	stop(syscall.Signal) // the server; what was added stays alive
	start()              // the server, again; returns when it answers
}

// follower gets every list a Runner reports, in order, as whoever balances by it does. It is told what lists may be: from
// unsure on something is happening, and what will be there is not known yet; expect says it, also for what came since
// unsure: a list is as before, as after or between. verdict says what was wrong so far, or "".
//
// The first of them judges lists; beside it stands one that lets traffic through (traffic_test.go).
type follower interface {
	follow(list []discovery.Backend)
	unsure()
	expect(before, after []string)
	is(want []string) bool // what it has from the last list is want
	verdict() string
}

// judge is the follower that only looks.
type judge struct {
	atOnce bool // set before there are lists: what happens is one change of the server, and nothing lies between

	// Guarded by mu.
	mu            sync.Mutex
	last          []string
	before, after []string
	waits         bool // for expect
	waiting       [][]string
	lists         int
	wrong         []string
}

// entry writes a backend as worlds do.
func entry(address string, weight int) string { return fmt.Sprintf("%s weight=%d", address, weight) }

func entries(list []discovery.Backend) []string {
	all := []string{}
	for _, b := range list {
		all = append(all, entry(b.Address.String(), b.Weight))
	}
	slices.Sort(all)
	return all
}

func (j *judge) follow(list []discovery.Backend) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = entries(list)
	if j.waiting = append(j.waiting, j.last); !j.waits {
		j.look()
	}
}

func (j *judge) unsure() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.waits = true
}

func (j *judge) expect(before, after []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before, j.after, j.waits = before, after, false
	j.look()
}

func (j *judge) look() {
	for _, list := range j.waiting {
		j.lists++
		if j.atOnce && !slices.Equal(list, j.before) && !slices.Equal(list, j.after) {
			j.wrong = append(j.wrong, fmt.Sprintf("list %d is %v; want %v or %v", j.lists, list, j.before, j.after))
		}
		for _, m := range j.before {
			if slices.Contains(j.after, m) && !slices.Contains(list, m) {
				j.wrong = append(j.wrong, fmt.Sprintf("list %d lacks %s: %v", j.lists, m, list))
			}
		}
		for _, l := range list {
			if !slices.Contains(j.before, l) && !slices.Contains(j.after, l) {
				j.wrong = append(j.wrong, fmt.Sprintf("list %d has %s, which is not there: %v", j.lists, l, list))
			}
		}
	}
	j.waiting = nil
}

// count returns how many lists there were.
func (j *judge) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lists + len(j.waiting)
}

// is reports whether the last list is want.
func (j *judge) is(want []string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Equal(j.last, want)
}

func (j *judge) verdict() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.wrong, "\n")
}

// story follows a world while things happen in it.
type story struct {
	t         *testing.T
	w         world
	r         *discovery.Runner
	judge     *judge
	traffic   *traffic // nil when the world is not balanced
	followers []follower
	now       map[int]string // what is in the world
}

// eager has what happens in the list soon, and what goes at once: these lists are short.
func eager(set *discovery.Settings) {
	set.Debounce, set.Interval, set.RetryMax, set.MinShare = 50*time.Millisecond, time.Second, 2*time.Second, 0
}

// strict has every list reported, and a list that is suddenly too short held back for five seconds.
func strict(set *discovery.Settings) {
	set.Debounce, set.Interval, set.RetryMin, set.RetryMax = 0, 100*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond
	set.Confirm = 50
}

// tell begins a story that is judged, and with clients when the world is balanced.
func tell(t *testing.T, w world) *story {
	t.Helper()
	return follow(t, w, &judge{}, eager, map[int]string{})
}

// tellStrictly begins one of a world with something in it, without clients. Lists are as before what happens or as after it,
// and nothing else; one that is suddenly too short is not believed.
func tellStrictly(t *testing.T, w world, now map[int]string) *story {
	t.Helper()
	return follow(t, listsOnly{w}, &judge{atOnce: true}, strict, now)
}

// listsOnly is a world without traffic.
type listsOnly struct{ world }

func follow(t *testing.T, w world, j *judge, settings func(*discovery.Settings), now map[int]string) *story {
	t.Helper()
	set := discovery.Defaults()
	settings(&set)
	r, err := discovery.New("web", []discovery.Source{w.source()}, set)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, w: w, r: r, judge: j, followers: []follower{j}, now: now}
	if b, ok := w.(balanced); ok {
		s.traffic = newTraffic(t, b)
		s.followers = append(s.followers, s.traffic)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.expect(nil, s.there())
	go func() {
		defer close(done)
		r.Run(ctx, func(list []discovery.Backend) {
			for _, f := range s.followers {
				f.follow(list)
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	if len(now) > 0 {
		until(t, "the first list", 30*time.Second, func() bool { return j.is(s.there()) })
		s.check("the first list")
	}
	return s
}

// patience is how long what happens may take to be in the list. An agent of Consul follows again up to a minute after an outage.
const patience = 90 * time.Second

func (s *story) there() []string { return slices.Sorted(maps.Values(s.now)) }

// happens lets something happen: until it is in the list, the list may be as before, as after or between, and nothing else.
func (s *story) happens(what string, f func(now map[int]string)) {
	s.t.Helper()
	before, begin := s.there(), time.Now()
	for _, f := range s.followers {
		f.unsure()
	}
	next := maps.Clone(s.now)
	f(next)
	s.now = next
	after := s.there()
	s.expect(before, after)
	until(s.t, fmt.Sprintf("%s: want %v; have %v, %s", what, after, entries(s.r.List()), s.status()), patience, func() bool {
		return !slices.ContainsFunc(s.followers, func(f follower) bool { return !f.is(after) })
	})
	s.expect(after, after)
	s.check(what)
	s.log(what, time.Since(begin))
}

func (s *story) expect(before, after []string) {
	for _, f := range s.followers {
		f.expect(before, after)
	}
}

func (s *story) check(what string) {
	s.t.Helper()
	for _, f := range s.followers {
		if v := f.verdict(); v != "" {
			s.t.Fatalf("%s: %s\n%s", what, v, s.status())
		}
	}
}

func (s *story) log(what string, d time.Duration) {
	s.t.Helper()
	line := fmt.Sprintf("%-44s %v", what, d.Round(time.Millisecond))
	if s.traffic != nil {
		line += fmt.Sprintf(", %d requests served so far", s.traffic.served.Load())
	}
	s.t.Log(line)
}

func (s *story) status() string {
	st := s.r.Status().Sources[0]
	return fmt.Sprintf("%s, error %q, skipped %q", st.State, st.Error, st.Skipped)
}

func (s *story) state(want discovery.State) {
	s.t.Helper()
	until(s.t, "state "+want.String(), 30*time.Second, func() bool { return s.r.Status().Sources[0].State == want })
}

// stays watches the list for d: nothing may be reported but what is there.
func (s *story) stays(what string, d time.Duration) {
	s.t.Helper()
	time.Sleep(d)
	s.check(what)
	if got := entries(s.r.List()); !slices.Equal(got, s.there()) {
		s.t.Fatalf("%s: got %v; want %v", what, got, s.there())
	}
	s.log(what, d)
}

// quiet watches for d: nothing at all may be reported, and nothing fails.
func (s *story) quiet(what string, d time.Duration) {
	s.t.Helper()
	lists, before := s.judge.count(), s.r.Status().Sources[0]
	s.stays(what, d)
	now := s.r.Status().Sources[0]
	if n := s.judge.count() - lists; n != 0 || now.State != discovery.Fresh || !maps.Equal(now.Counters.Failed, before.Counters.Failed) {
		s.t.Fatalf("%s: %d lists, %s, failures %v after %v; want no list and no failure", what, n, s.status(), now.Counters.Failed, before.Counters.Failed)
	}
}

// outage ends the server by a signal and starts it again after what happens meanwhile. The list stays as it is.
func (s *story) outage(what string, sig syscall.Signal, meanwhile func()) {
	s.t.Helper()
	begin := time.Now()
	s.w.stop(sig)
	s.state(discovery.Failing)
	meanwhile()
	s.state(discovery.Failing)
	s.w.start()
	s.state(discovery.Fresh)
	s.check(what)
	s.log(what, time.Since(begin))
}

// whole is the story that every server goes through.
func (s *story) whole() {
	s.t.Helper()
	s.happens("two come", func(now map[int]string) { now[1] = s.w.add(1, 1); now[2] = s.w.add(2, 1) })
	s.happens("another comes", func(now map[int]string) { now[3] = s.w.add(3, 5) })
	s.happens("one changes", func(now map[int]string) { now[2] = s.w.change(2, 7) })
	s.happens("one goes", func(now map[int]string) { s.w.remove(1); delete(now, 1) })

	s.outage("the server restarts", syscall.SIGTERM, func() {})
	s.happens("one comes after the restart", func(now map[int]string) { now[4] = s.w.add(4, 1) })

	s.outage("the server is killed", syscall.SIGKILL, func() {})
	s.happens("one goes after it was killed", func(now map[int]string) { s.w.remove(3); delete(now, 3) })

	s.outage("the server was down", syscall.SIGTERM, func() { s.stays("the server is down", *down) })
	s.happens("one changes after it was down", func(now map[int]string) { now[4] = s.w.change(4, 2) })
	s.quiet("quiet, over a resync", 3*time.Second)
}
