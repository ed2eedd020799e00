package admin

import (
	"net/netip"
	"sync"
	"time"
)

// How many wrong credentials a source may show before it has to wait, and how soon one more is allowed.
const (
	guesses     = 10
	guessEvery  = 6 * time.Second
	maxGuessers = 4096 // sources remembered; beyond that, those unknown share an account with their IPv4 /8 or IPv6 /16
)

// throttle slows those who guess credentials, by source: an IPv4 address, an IPv6 /64, or all of a unix socket.
type throttle struct {
	// Guarded by mu.
	mu    sync.Mutex
	debt  map[netip.Prefix]time.Time // until when the guesses made are paid for
	swept time.Time                  // when those that are paid were last left out
}

// sourceOf returns what of an address counts as one source.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}

// wait returns how long a source must wait before it may try again; 0: not at all.
func (t *throttle) wait(a netip.Addr, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.debt[t.account(a, now)].Add(-(guesses-1)*guessEvery).Sub(now), 0)
}

// wrong notes that a source has shown wrong credentials.
func (t *throttle) wrong(a netip.Addr, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	source := t.account(a, now)
	if t.debt == nil {
		t.debt = map[netip.Prefix]time.Time{}
	}
	paid := t.debt[source]
	if paid.Before(now) {
		paid = now
	}
	t.debt[source] = paid.Add(guessEvery)
}

// account returns under which key a source is kept. t.mu is held.
func (t *throttle) account(a netip.Addr, now time.Time) netip.Prefix {
	source := sourceOf(a)
	if _, known := t.debt[source]; known || len(t.debt) < maxGuessers {
		return source
	}
	if now.Sub(t.swept) >= time.Second {
		t.swept = now
		for s, paid := range t.debt {
			if paid.Before(now) {
				delete(t.debt, s)
			}
		}
	}
	if len(t.debt) < maxGuessers || !source.IsValid() {
		return source
	}
	return wide(source)
}

// wide returns the network of a source that has more addresses than anybody has, so that who guesses from thousands has only
// those near to him wait. There are few: 256, and of IPv6 those that are given out, some thousand.
func wide(source netip.Prefix) netip.Prefix {
	bits := 8
	if source.Addr().Is6() {
		bits = 16
	}
	p, _ := source.Addr().Prefix(bits)
	return p
}
