package tlsbridge

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

const (
	// TicketPeriod is how long a key encrypts new session tickets. It decrypts for two periods more.
	TicketPeriod = 8 * time.Hour

	ticketMinSecret = 32 // bytes
	ticketKept      = 2  // earlier periods whose tickets are still good
)

// Tickets makes the keys that session tickets are encrypted with, for all frontends and shards of a process; the server
// keeps nothing else of a session. Each period of each trust domain (a frontend, say) has a key of its own, derived by
// HKDF-SHA256, so that a ticket is worth nothing elsewhere.
//
// With a shared secret, processes that have the same secret and about the same clock resume each other's sessions, and
// whoever learns the secret can read recorded sessions of TLS 1.2 with tickets, and forge tickets. Without one the secrets
// are random, one per period, and forgotten when their tickets have expired.
//
// Safe from any goroutine; meant for the control plane.
type Tickets struct {
	// Set once, never changed.
	shared []byte
	period time.Duration

	// Guarded by mu.
	mu     sync.Mutex
	random map[int64][]byte // by period, when not shared
}

// NewTickets returns Tickets with a period, 0 for TicketPeriod, and a shared secret of at least 32 bytes, nil for none.
func NewTickets(shared []byte, period time.Duration) (*Tickets, error) {
	if period == 0 {
		period = TicketPeriod
	}
	if period < time.Minute {
		return nil, fmt.Errorf("period: got %v; want at least 1m", period)
	}
	if shared != nil && len(shared) < ticketMinSecret {
		return nil, fmt.Errorf("secret: got %d bytes; want at least %d random ones (openssl rand 32)", len(shared), ticketMinSecret)
	}
	return &Tickets{shared: shared, period: period, random: map[int64][]byte{}}, nil
}

// number returns the period that now is in.
func (t *Tickets) number(now time.Time) int64 { return now.UnixNano() / int64(t.period) }

// Next returns when the keys change next: the time to call Apply again, for every configuration in use.
func (t *Tickets) Next(now time.Time) time.Time {
	return time.Unix(0, (t.number(now)+1)*int64(t.period))
}

// Apply sets the keys of a domain in a configuration, which may be in use.
func (t *Tickets) Apply(config *tls.Config, domain string, now time.Time) {
	config.SetSessionTicketKeys(t.Keys(domain, now))
}

// Keys returns the keys of a domain: the one to encrypt with first, then those to decrypt with as well. With a shared
// secret the next period's is among them, for processes whose clocks are ahead.
func (t *Tickets) Keys(domain string, now time.Time) [][32]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	current := t.number(now)
	keys := [][32]byte{t.key(domain, current)}
	if t.shared != nil {
		keys = append(keys, t.key(domain, current+1))
	}
	for i := range int64(ticketKept) {
		if earlier := current - 1 - i; t.shared != nil || t.random[earlier] != nil {
			keys = append(keys, t.key(domain, earlier))
		}
	}
	for period := range t.random {
		if period < current-ticketKept || period > current { // later: the clock was set back
			delete(t.random, period)
		}
	}
	return keys
}

func (t *Tickets) key(domain string, period int64) (key [32]byte) {
	secret := t.shared
	if secret == nil {
		if secret = t.random[period]; secret == nil {
			secret = make([]byte, ticketMinSecret)
			_, _ = rand.Read(secret) // never fails: the process would end first
			t.random[period] = secret
		}
	}
	info := append([]byte("awe4lb session tickets 1\x00"+domain+"\x00"), make([]byte, 8)...)
	binary.BigEndian.PutUint64(info[len(info)-8:], uint64(period))
	derived, err := hkdf.Key(sha256.New, secret, nil, string(info), len(key))
	if err != nil {
		panic("tlsbridge: hkdf: " + err.Error()) // only for lengths that ours is not
	}
	copy(key[:], derived)
	return key
}
