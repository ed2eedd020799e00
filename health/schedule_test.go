package health

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"awe4lb/config"
)

// bench is a Prober whose probes are made up, in a bubble of time.
type bench struct {
	t *testing.T
	p *Prober

	mu     sync.Mutex
	heard  []string // transitions
	probed map[string][]time.Time
	answer func(address string, n int) outcome // the n-th probe of an address, from 0
	takes  time.Duration

	running, most atomic.Int64
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, probed: map[string][]time.Time{}, answer: func(string, int) outcome { return isGood("well") }}
	b.p = New(Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Changed: b.changed})
	b.p.probe = func(ctx context.Context, c *check) outcome {
		if n := b.running.Add(1); n > b.most.Load() {
			b.most.Store(n)
		}
		defer b.running.Add(-1)
		b.mu.Lock()
		address := c.address.String()
		n := len(b.probed[address])
		b.probed[address] = append(b.probed[address], time.Now())
		o := b.answer(address, n)
		b.mu.Unlock()
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
		}
		return o
	}
	return b
}

func (b *bench) changed(x Transition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x.Initial {
		b.heard = append(b.heard, fmt.Sprintf("%s/%s begins %v", x.Pool, x.Address, x.Up))
		return
	}
	b.heard = append(b.heard, fmt.Sprintf("%s/%s %v: %s", x.Pool, x.Address, x.Up, x.Why))
}

// take returns what was heard since the last take, and clears it.
func (b *bench) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := strings.Join(b.heard, "\n")
	b.heard = nil
	return s
}

func (b *bench) probes(address string) []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probed[address]
}

func (b *bench) apply(text string) *config.Config {
	b.t.Helper()
	cfg := parse(b.t, text)
	b.p.Apply(cfg)
	return cfg
}

func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const onePool = "[pools.p]\nbackends = [{address = '10.0.0.1:1'}]\n[pools.p.health]\n"

// TestTransitions: only consecutive results count, in the time they take.
func TestTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		script := "gggbbgbbb" + "bggbgbggg" + "uuubbubbb" // good, bad, unknown
		b.answer = func(_ string, n int) outcome {
			switch script[n%len(script)] {
			case 'g':
				return isGood("well")
			case 'b':
				return isBad("ill %d", n)
			}
			return outcome{}
		}
		b.apply(onePool + "interval = '1s'\njitter = 0\nrise = 3\nfall = 3")
		time.Sleep(time.Duration(len(script))*time.Second - 500*time.Millisecond)
		synctest.Wait()
		want := "p/10.0.0.1:1 begins true\np/10.0.0.1:1 false: ill 8\np/10.0.0.1:1 true: well\np/10.0.0.1:1 false: ill 24"
		if got := b.take(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		s := b.p.Status()[Key{"p", config.Address{IP: netip.MustParseAddrPort("10.0.0.1:1")}}]
		if s.State != "down" || s.Good != 10 || s.Bad != 13 || s.Unknown != 4 || s.Changes != 3 || s.Why != "ill 24" || s.Streak != 0 {
			t.Errorf("status %+v", s)
		}
		b.p.Close()
		if b.running.Load() != 0 {
			t.Error("a probe runs after Close")
		}
	})
}

// TestInitial: what a backend begins with, and what the first results make of it.
func TestInitial(t *testing.T) {
	for _, tc := range []struct {
		initial string
		good    bool
		want    string // transitions, with the number of the probe
	}{
		{"up", true, "begins true"},
		{"up", false, "begins true, false after 3"},
		{"down", true, "begins false, true after 2"},
		{"down", false, "begins false"},
		{"checking", true, "begins false, true after 1"},
		{"checking", false, "begins false, false after 1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.answer = func(_ string, n int) outcome {
				o := isGood(fmt.Sprint("after ", n+1))
				if !tc.good {
					o = isBad("after %d", n+1)
				}
				return o
			}
			b.apply(onePool + "initial = '" + tc.initial + "'")
			time.Sleep(time.Minute)
			b.p.Close()
			got := strings.ReplaceAll(strings.ReplaceAll(b.take(), "p/10.0.0.1:1 ", ""), ":", "")
			if got = strings.ReplaceAll(got, "\n", ", "); got != tc.want {
				t.Errorf("%s, %v: got %q; want %q", tc.initial, tc.good, got, tc.want)
			}
		})
	}
}

// TestFlapping: a backend that flaps every 300 ms changes at most once in fall intervals.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		begun := time.Now()
		b.answer = func(string, int) outcome {
			if time.Since(begun)/(300*time.Millisecond)%2 == 0 {
				return isGood("well")
			}
			return isBad("ill")
		}
		b.apply(onePool + "interval = '500ms'\ntimeout = '100ms'\nrise = 2\nfall = 2")
		time.Sleep(time.Hour)
		b.p.Close()
		if n := strings.Count(b.take(), "\n"); n > 3600 {
			t.Errorf("%d changes in an hour of 7200 probes", n)
		}
	})
}

// TestIntervals: the jitter, and the other interval while a backend is down.
func TestIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.takes = 50 * time.Millisecond
		b.answer = func(_ string, n int) outcome {
			if n < 100 {
				return isGood("well")
			}
			return isBad("ill")
		}
		b.apply(onePool + "interval = '2s'\ninterval_down = '10s'\njitter = 20\nfall = 1")
		time.Sleep(20 * time.Minute)
		b.p.Close()
		all := b.probes("10.0.0.1:1")
		distinct := map[time.Duration]bool{}
		for i, at := range all[1:] {
			d, lo, hi := at.Sub(all[i]), 1600*time.Millisecond, 2400*time.Millisecond
			if i >= 100 {
				lo, hi = 8*time.Second, 12*time.Second
			}
			if d < lo || d > hi {
				t.Errorf("%v between probes %d and %d; want %v to %v", d, i, i+1, lo, hi)
			}
			distinct[d] = true
		}
		if len(all) < 180 || len(distinct) < 100 {
			t.Errorf("%d probes, %d different intervals", len(all), len(distinct))
		}
	})
}

// manyPools returns n backends in pools of a hundred.
func manyPools(n int, health string) string {
	var s strings.Builder
	for i := range n {
		if i%100 == 0 {
			fmt.Fprintf(&s, "[pools.p%d]\nhealth = {%s}\nbackends = [\n", i/100, health)
		}
		fmt.Fprintf(&s, "{address = '10.0.%d.%d:80'},\n", i/250, i%250+1)
		if i%100 == 99 || i == n-1 {
			s.WriteString("]\n")
		}
	}
	return s.String()
}

// TestNoStorm: the first probes of a thousand backends are spread over the interval, later ones too, and those that hang do
// not pile up.
func TestNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		begun := time.Now()
		b.apply(manyPools(1000, "interval = '2s'"))
		time.Sleep(time.Minute)
		synctest.Wait()
		perTenth := make([]int, 600)
		b.mu.Lock()
		if len(b.probed) != 1000 {
			t.Errorf("%d subjects were probed", len(b.probed))
		}
		for address, all := range b.probed {
			if at := all[0].Sub(begun); at > 2*time.Second+10*time.Millisecond {
				t.Errorf("%s was first probed after %v", address, at)
			}
			for _, at := range all {
				perTenth[min(at.Sub(begun)/(100*time.Millisecond), 599)]++
			}
		}
		b.mu.Unlock()
		for i, n := range perTenth {
			if n > 120 { // 50 on the average
				t.Errorf("%d probes in tenth %d of a second", n, i)
			}
		}
		b.takes = 0
		b.p.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.takes = time.Second
		b.answer = func(string, int) outcome { return isBad("hangs") }
		b.apply(manyPools(1000, "interval = '2s', fall = 2"))
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if most := b.most.Load(); most != int64(laneWidth[network]) {
			t.Errorf("%d probes at once; want %d", most, laneWidth[network])
		}
		if n := strings.Count(b.take(), "false: hangs"); n != 1000 {
			t.Errorf("%d of 1000 went down within 40 s", n)
		}
		b.p.Close()
	})
}

// TestFewAreProbedAtOnce: nobody waits an interval of an hour for the first result.
func TestFewAreProbedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.apply(manyPools(10, "interval = '1h', initial = 'checking'"))
		time.Sleep(10 * maxGap)
		synctest.Wait()
		if n := strings.Count(b.take(), "true: well"); n != 10 {
			t.Errorf("%d of 10 are up", n)
		}
		b.p.Close()
	})
}

// TestProbedOnce: what two pools ask in the same way is asked once, and each counts by itself.
func TestProbedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answer = func(_ string, n int) outcome { return isBad("%d", n) }
		backends := "backends = [{address = '10.0.0.1:1'}]\nhealth = "
		b.apply("[pools.a]\n" + backends + "{fall = 2, jitter = 0}\n[pools.b]\n" + backends + "{fall = 4, jitter = 0}\n" +
			"[pools.c]\nbackends = [{address = '10.0.0.2:1'}]\nhealth = {address = '10.0.0.1', jitter = 0}\n")
		time.Sleep(7 * time.Second)
		b.p.Close()
		if n := len(b.probes("10.0.0.1:1")); n != 4 {
			t.Errorf("%d probes", n)
		}
		got := b.take()
		for _, want := range []string{"a/10.0.0.1:1 false: 1", "b/10.0.0.1:1 false: 3"} {
			if !strings.Contains(got, want) {
				t.Errorf("got\n%s\nwant %s", got, want)
			}
		}
	})
}

// TestReload: what stays goes on with its streak, what changes begins anew from the state it is in, what goes ends.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answer = func(string, int) outcome { return isBad("ill") }
		base := "[pools.a]\nbackends = [{address = '10.0.0.1:1'}]\nhealth = {jitter = 0, fall = 3}\n"
		b.apply(base + "[pools.b]\nbackends = [{address = '10.0.0.2:1'}]\nhealth = {jitter = 0, fall = 3}\n")
		time.Sleep(3 * time.Second) // two failures
		b.take()
		b.apply(base + "[pools.b]\nbackends = [{address = '10.0.0.2:1'}, {address = '10.0.0.3:1'}]\nhealth = {jitter = 0, fall = 3, timeout = '900ms'}\n")
		synctest.Wait()
		if got := b.take(); got != "b/10.0.0.3:1 begins true" {
			t.Errorf("the reload: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := b.take(); got != "a/10.0.0.1:1 false: ill" {
			t.Errorf("a third failure: %s", got)
		}
		time.Sleep(4 * time.Second)
		if got := b.take(); !strings.Contains(got, "b/10.0.0.2:1 false: ill") || !strings.Contains(got, "b/10.0.0.3:1 false: ill") {
			t.Errorf("three more: %s", got)
		}
		// b is not checked any more, and a is gone.
		b.apply("[pools.b]\nbackends = [{address = '10.0.0.2:1'}]\n")
		synctest.Wait()
		if got := b.take(); got != "b/10.0.0.2:1 true: it is not checked any more" {
			t.Errorf("the end: %s", got)
		}
		n := len(b.probes("10.0.0.1:1")) + len(b.probes("10.0.0.2:1"))
		time.Sleep(time.Hour)
		if after := len(b.probes("10.0.0.1:1")) + len(b.probes("10.0.0.2:1")); after != n {
			t.Errorf("%d probes after the end", after-n)
		}
		if len(b.p.Status()) != 0 {
			t.Errorf("status %v", b.p.Status())
		}
		b.p.Close()
	})
}

// TestReloadDuringProbe: a probe whose subject goes meanwhile has no effect.
func TestReloadDuringProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.takes = time.Second
		b.answer = func(string, int) outcome { return isBad("ill") }
		b.apply(onePool + "fall = 1")
		time.Sleep(500 * time.Millisecond)
		b.apply("[pools.p]\nbackends = [{address = '10.0.0.1:1'}]\n[pools.q]\n")
		time.Sleep(time.Minute)
		if got := b.take(); got != "p/10.0.0.1:1 begins true" {
			t.Errorf("heard %s", got)
		}
		b.p.Close()
	})
}

// TestFollow: kind pool.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var ill sync.Map
		b.answer = func(address string, _ int) outcome {
			if _, is := ill.Load(address); is {
				return isBad("ill")
			}
			return isGood("well")
		}
		b.apply("[pools.a]\nbackends = [{address = '10.0.0.1:1'}, {address = '10.0.0.2:1'}]\nhealth = {fall = 1, rise = 1}\n" +
			"[pools.host]\nbackends = [{address = '10.0.0.1:2'}, {address = '10.0.0.2:2'}, {address = '10.0.0.3:2'}]\nhealth = {kind = 'pool', pool = 'a'}\n" +
			"[pools.any]\nbackends = [{address = '10.0.0.9:2'}]\nhealth = {kind = 'pool', pool = 'a', follow = 'any'}\n")
		synctest.Wait()
		b.take()
		step := func(want string) {
			t.Helper()
			time.Sleep(3 * time.Second)
			if got := b.take(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		}
		ill.Store("10.0.0.1:1", true)
		step("a/10.0.0.1:1 false: ill\nhost/10.0.0.1:2 false: pool a: 10.0.0.1:1 is down")
		ill.Store("10.0.0.2:1", true)
		step("a/10.0.0.2:1 false: ill\nhost/10.0.0.2:2 false: pool a: 10.0.0.2:1 is down\nany/10.0.0.9:2 false: pool a: none of 2 backends is up")
		ill.Delete("10.0.0.1:1")
		step("a/10.0.0.1:1 true: well\nhost/10.0.0.1:2 true: pool a: 10.0.0.1:1 is up\nany/10.0.0.9:2 true: pool a: 10.0.0.1:1 is up")
		b.p.Close()
	})
}

// TestStreakModel: random results against the rule written down another way: the state is what the last n agree on.
func TestStreakModel(t *testing.T) {
	for range 500 {
		rise, fall := rand.IntN(4)+1, rand.IntN(4)+1
		s := newStreak(rise, fall, []string{"up", "down"}[rand.IntN(2)])
		up := s.up
		var all []bool
		for range 200 {
			good := rand.IntN(2) == 0
			all = append(all, good)
			n := fall
			if !up {
				n = rise
			}
			flip := len(all) >= n
			for _, r := range all[max(0, len(all)-n):] {
				flip = flip && r != up
			}
			if flip {
				up = !up
			}
			if changed := s.add(good); changed != flip || s.up != up {
				t.Fatalf("rise %d, fall %d: %v: got %v, %v; want %v, %v", rise, fall, all, changed, s.up, flip, up)
			}
		}
	}
}

// TestAdvised: what an agent wants is told when it wants something else, and holds while it says nothing of it.
func TestAdvised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var heard []string
		b.p.o.Advised = func(k Key, a Advice) { heard = append(heard, fmt.Sprintf("%s %d %s", k.Address, a.Percent, a.Order)) }
		said := []string{"up", "50%", "up", "drain", "50% up", "ready", "down", "10% maint", "10%", "up"}
		b.answer = func(_ string, n int) outcome { return judgeAgent(said[min(n, len(said)-1)]) }
		b.apply(onePool + "kind = 'agent'\nport = 1\ninterval = '1s'\njitter = 0\nfall = 100")
		time.Sleep(20 * time.Second)
		b.p.Close()
		want := "10.0.0.1:1 50 , 10.0.0.1:1 50 drain, 10.0.0.1:1 50 ready, 10.0.0.1:1 10 maint"
		if got := strings.Join(heard, ", "); got != want {
			t.Errorf("got %s; want %s", got, want)
		}
		for _, s := range b.p.Status() {
			if s.Weight != 10 || s.Order != "maint" {
				t.Errorf("status %+v", s)
			}
		}
	})
}

// BenchmarkApply1000 is a reload with a thousand backends that changes nothing.
func BenchmarkApply1000(b *testing.B) {
	p := New(Options{Log: slog.Default(), Changed: func(Transition) {}})
	p.probe = func(context.Context, *check) outcome { return isGood("") }
	cfg := parse(b, manyPools(1000, "interval = '1h'"))
	defer p.Close()
	for b.Loop() {
		p.Apply(cfg)
	}
}

// TestPoolDown: that nobody of a pool is left is told once, when it is sure, and so is the end of that.
func TestPoolDown(t *testing.T) {
	for _, initial := range []string{"up", "checking"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			var heard []string
			b.p.o.Changed = func(x Transition) {
				if x.PoolDown || x.PoolUp {
					heard = append(heard, fmt.Sprintf("%s %s %v %v", x.Address, x.Before, x.PoolDown, x.PoolUp))
				}
			}
			b.answer = func(_ string, n int) outcome {
				if n < 5 || n > 10 {
					return isBad("ill")
				}
				return isGood("well")
			}
			b.apply("[pools.p]\nbackends = [{address = '10.0.0.1:1'}, {address = '10.0.0.2:1'}, {address = '10.0.0.3:1', weight = 0}]\n" +
				"health = {jitter = 0, fall = 1, rise = 1, initial = '" + initial + "'}")
			time.Sleep(time.Minute)
			b.p.Close()
			want := fmt.Sprintf("10.0.0.2:1 %s true false, 10.0.0.1:1 down false true, 10.0.0.2:1 up true false", initial)
			if got := strings.Join(heard, ", "); got != want {
				t.Errorf("got %s; want %s", got, want)
			}
		})
	}
}
