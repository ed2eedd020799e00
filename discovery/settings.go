package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

// FailPolicy says what a source that fails does to the backends it found before.
type FailPolicy uint8

const (
	Keep  FailPolicy = iota // they stay; also when it answers and knows none at all
	Empty                   // they go
)

func (p FailPolicy) String() string { return [...]string{"keep", "empty"}[p] }

// Settings of a Runner. Start from Defaults: the zero Settings are refused.
type Settings struct {
	Interval time.Duration // between fetches; of a Watcher, how often its latest list counts as said again. 100ms or more
	Jitter   float64       // share of a wait by which it is made longer or shorter at random, 0 to 0.5
	Timeout  time.Duration // of one fetch, and for the first list of a Watcher
	RetryMin time.Duration // wait after the first failure; it doubles with each
	RetryMax time.Duration // until this
	Debounce time.Duration // how long changes are collected before one is reported; 0 = not at all

	Fail     FailPolicy
	MaxAge   time.Duration // how long a list is used after the source last said so; then it goes, whatever Fail says. 0 = no limit
	MinShare int           // percent: a list below this share of the one in use is held back. 0 to 100; 0 = never
	Confirm  int           // how many fetches in a row must confirm it, 0 to 1000; 0 means that it is taken at once

	MaxBackends int       // a longer list is an error
	SaveTo      string    // absolute path of the file in which lists outlive the process; "" = none
	Static      []Backend // always there; where a source has the same address, this one is right

	Within []netip.Prefix // the only addresses that sources may be asked at; none = any
	Tell   func(Event)    // hears of what happens, from Run's goroutine; nil = nobody
}

// Defaults returns the settings for who says nothing: every 10 s, keep what was found, hold back what is suddenly less
// than half for 3 more fetches.
func Defaults() Settings {
	return Settings{
		Interval: 10 * time.Second, Jitter: 0.1, Timeout: 5 * time.Second, RetryMin: time.Second, RetryMax: 30 * time.Second,
		Debounce: 200 * time.Millisecond, MinShare: 50, Confirm: 3, MaxBackends: 16384,
	}
}

func (s *Settings) check() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(s.Interval >= 100*time.Millisecond, "interval: got %v; want 100ms or more", s.Interval)
	want(s.Jitter >= 0 && s.Jitter <= 0.5, "jitter: got %v; want 0 to 0.5", s.Jitter)
	want(s.Timeout > 0, "timeout: got %v; want more than 0s", s.Timeout)
	want(s.RetryMin > 0 && s.RetryMax >= s.RetryMin, "retry: got %v to %v; want more than 0s, and the second not shorter", s.RetryMin, s.RetryMax)
	want(s.Debounce >= 0, "debounce: got %v; want 0s or more", s.Debounce)
	want(s.Fail <= Empty, "fail: got %d; want keep or empty", s.Fail)
	want(s.MaxAge >= 0, "max_age: got %v; want 0s or more", s.MaxAge)
	want(s.MinShare >= 0 && s.MinShare <= 100, "min_share: got %d; want 0 to 100", s.MinShare)
	want(s.Confirm >= 0 && s.Confirm <= 1000, "confirm: got %d; want 0 to 1000", s.Confirm)
	want(s.MaxBackends > 0, "max_backends: got %d; want 1 or more", s.MaxBackends)
	want(s.SaveTo == "" || filepath.IsAbs(s.SaveTo), "save_to: got %q; want an absolute path", s.SaveTo)
	for i := range s.Static {
		if err := s.Static[i].Check(); err != nil {
			errs = append(errs, fmt.Errorf("static backend %s: %w", s.Static[i].Address, err))
		}
	}
	return errors.Join(errs...)
}
