package balancer

import (
	"testing"
	"testing/synctest"
	"time"

	"awe4lb/config"
)

// compared is a pool of n backends whose success rates are compared, with the defaults.
func compared(n int, edit func(*config.Outliers)) *Pool {
	o := config.Outliers{Failures: 5, Ejection: 30 * time.Second, MaxEjection: 100 * time.Second, MaxEjected: 50,
		SuccessRate: &config.SuccessRate{Interval: 10 * time.Second, MinRequests: 100, MinBackends: 5, Deviation: 190, Margin: 5}}
	if edit != nil {
		edit(&o)
	}
	return watched(n, o)
}

// score judges p after attempts of its backends, all, of which some failed. It returns which were ejected, by number.
type score struct {
	p     *Pool
	tally map[*Backend]Tally
}

func newScore(p *Pool) *score {
	s := &score{p, map[*Backend]Tally{}}
	p.Judge(s.of)
	return s
}

func (s *score) of(b *Backend) Tally { return s.tally[b] }

// after notes attempts in all, of which some failed, in the order of the backends, and judges.
func (s *score) after(all int, failed ...int) []Verdict {
	for i, n := range failed {
		b := s.p.Members[i].Backend
		t := s.tally[b]
		s.tally[b] = Tally{t.Attempts + uint64(all), t.Failures + uint64(n)}
	}
	return s.p.Judge(s.of)
}

// TestSuccessRate: who is ejected, by what came of 200 attempts each.
func TestSuccessRate(t *testing.T) {
	for name, tc := range map[string]struct {
		failed []int // of 200
		edit   func(*config.Outliers)
		want   []int // ports, the worst first
	}{
		"all well":                        {failed: []int{0, 0, 0, 0, 0}},
		"all alike":                       {failed: []int{70, 70, 70, 70, 70}},
		"all alike, and any less is less": {failed: []int{60, 60, 60, 60, 60, 60}, edit: func(o *config.Outliers) { o.SuccessRate.Margin, o.SuccessRate.Deviation = 0, 1 }},
		"one half dead":                   {failed: []int{0, 100, 0, 0, 0}, want: []int{2}},
		"one dead":                        {failed: []int{200, 0, 0, 0, 0}, want: []int{1}},
		"worse, and within the margin":    {failed: []int{0, 12, 0, 0, 0}}, // the average is 98.8 %
		"worse, and beyond the margin":    {failed: []int{0, 13, 0, 0, 0}, want: []int{2}},
		"worse, and no margin":            {failed: []int{0, 1, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.Margin = 0 }, want: []int{2}},
		"better than the others":          {failed: []int{100, 100, 0, 100, 100, 100, 100}},
		"within what is usual":            {failed: []int{20, 60, 100, 140, 40, 80, 120}},
		"four backends":                   {failed: []int{0, 100, 0, 0}},
		"four are enough":                 {failed: []int{0, 100, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.MinBackends, o.SuccessRate.Deviation = 4, 150 }, want: []int{2}},
		"two of ten, the worse first":     {failed: []int{0, 0, 100, 0, 0, 0, 120, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.Deviation = 100 }, want: []int{7, 3}},
		"two of ten, one may":             {failed: []int{0, 0, 100, 0, 0, 0, 120, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.Deviation, o.MaxEjected = 100, 10 }, want: []int{7}},
		"nobody may be ejected":           {failed: []int{0, 100, 0, 0, 0}, edit: func(o *config.Outliers) { o.MaxEjected = 0 }},
		"more failures than attempts":     {failed: []int{0, 300, 0, 0, 0}, want: []int{2}},
		"a row only":                      {failed: []int{0, 100, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate = nil }},
		"more attempts are wanted":        {failed: []int{0, 100, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.MinRequests = 201 }},
		"exactly as many as are wanted":   {failed: []int{0, 100, 0, 0, 0}, edit: func(o *config.Outliers) { o.SuccessRate.MinRequests = 200 }, want: []int{2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := compared(len(tc.failed), tc.edit)
			s := newScore(p)
			var got []int
			for _, v := range s.after(200, tc.failed...) {
				got = append(got, port(v.Backend))
				if v.For != 30*time.Second || v.Attempts != 200 || v.NumBackends != len(tc.failed) || v.Rate >= v.Average || v.Backend.State() != Ejected {
					t.Errorf("%s: %+v, %v", name, v, v.Backend.State())
				}
			}
			if len(got) != len(tc.want) {
				t.Fatalf("%s: ejected %v, want %v", name, got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("%s: ejected %v, want %v", name, got, tc.want)
				}
			}
			if again := s.after(0, make([]int, len(tc.failed))...); again != nil {
				t.Errorf("%s: nothing has happened since, and %v are ejected", name, again)
			}
			time.Sleep(time.Hour) // timers of ejections end with the bubble
		})
	}
}

// TestSuccessRateWhoCounts: those that are down, ejected or not to be used are neither judged nor compared with.
func TestSuccessRateWhoCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := compared(6, nil)
		s := newScore(p)
		p.Members[5].SetState(Down)
		if v := s.after(200, 0, 0, 0, 0, 0, 200); v != nil {
			t.Errorf("one that is down was ejected: %v", v)
		}
		p.Members[4].SetState(Drain)
		if v := s.after(200, 100, 0, 0, 0, 0, 0); v != nil {
			t.Errorf("of six backends four are up, and %v are ejected", v)
		}
		p.Members[4].Readmit()
		if v := s.after(200, 100, 0, 0, 0, 0, 0); len(v) != 1 || v[0].NumBackends != 5 {
			t.Errorf("got %v", v)
		}
		// What happened while it was down is not held against it.
		p.Members[5].SetState(Up)
		if v := s.after(200, 0, 0, 0, 0, 0, 0); v != nil {
			t.Errorf("got %v", v)
		}
		time.Sleep(time.Hour)
	})
}

// TestSuccessRateInTime: when it is due; how long an ejection is, each time twice as long until it is found to be like the
// others; and the trial afterwards.
func TestSuccessRateInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := compared(5, nil)
		b := p.Members[1].Backend
		if wanted, due := p.Judges(); !wanted || !due {
			t.Error("not due at first")
		}
		s := newScore(p)
		time.Sleep(9 * time.Second)
		if _, due := p.Judges(); due {
			t.Error("due too early")
		}
		time.Sleep(time.Second)
		if _, due := p.Judges(); !due {
			t.Error("not due")
		}
		for i, want := range []time.Duration{30 * time.Second, time.Minute, 100 * time.Second, 100 * time.Second} {
			v := s.after(200, 0, 100, 0, 0, 0)
			if len(v) != 1 || v[0].For != want {
				t.Fatalf("ejection %d: %v, want %v", i, v, want)
			}
			time.Sleep(want - time.Millisecond)
			if b.State() != Ejected {
				t.Fatal("back too early")
			}
			time.Sleep(2 * time.Millisecond)
			if b.State() != Up {
				t.Fatal("not back")
			}
			p.Served(b, false) // on trial it serves, but that does not make it as good as the others
			p.Served(b, true)
		}
		if v := s.after(200, 0, 1, 0, 0, 0); v != nil {
			t.Fatalf("got %v", v)
		}
		if v := s.after(200, 0, 100, 0, 0, 0); len(v) != 1 || v[0].For != 30*time.Second {
			t.Fatalf("it had been well: got %v", v)
		}
		time.Sleep(31 * time.Second)
		if d := p.Failed(b); d != time.Minute {
			t.Errorf("on trial, and a failure ejects it for %v", d)
		}
		failures, rate := b.Ejections()
		if failures != 1 || rate != 5 {
			t.Errorf("%d and %d ejections counted", failures, rate)
		}
		time.Sleep(time.Hour)
	})
}
