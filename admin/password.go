package admin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// maxPassword keeps strangers from having us hash what is endless. bcrypt itself looks at 72 bytes.
const maxPassword = 256

// passwordFits reports whether password is the one that hash, which config has checked, was made of.
func passwordFits(hash []byte, password string) bool {
	if len(password) > maxPassword {
		return false
	}
	if !strings.HasPrefix(string(hash), "$argon2id$") {
		return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	}
	parts := strings.Split(string(hash), "$")
	var cost [3]int // memory in KiB, rounds, lanes
	for i, s := range strings.Split(parts[3], ",") {
		cost[i], _ = strconv.Atoi(s[2:])
	}
	salt, _ := base64.RawStdEncoding.DecodeString(parts[4])
	want, _ := base64.RawStdEncoding.DecodeString(parts[5])
	got := argon2.IDKey([]byte(password), salt, uint32(cost[1]), uint32(cost[0]), uint8(cost[2]), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}

// hashing is held while a password is checked, since each costs some 50 ms of a core that the data path may want, and with
// argon2id up to 256 MiB: one at a time.
var hashing sync.Mutex

// How many may wait for hashing: of all, and of one source. It is a few seconds of waiting for the last.
const (
	maxQueue    = 256
	maxOwnQueue = 64
)

// queue counts those who wait for hashing, so that strangers do not make it endless.
type queue struct {
	// Guarded by mu.
	mu      sync.Mutex
	waiting map[netip.Prefix]int
	total   int
}

// enter counts one more, or says why there is no place.
func (q *queue) enter(source netip.Prefix) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var p *problem
	switch {
	case q.waiting[source] >= maxOwnQueue:
		p = problemf(fasthttp.StatusTooManyRequests, "%d passwords from there wait to be checked; try again later", maxOwnQueue)
	case q.total >= maxQueue:
		p = problemf(fasthttp.StatusServiceUnavailable, "%d passwords wait to be checked; try again later, or show a token", maxQueue)
	default:
		if q.waiting == nil {
			q.waiting = map[netip.Prefix]int{}
		}
		q.waiting[source]++
		q.total++
		return nil
	}
	p.wait = 1
	return p
}

func (q *queue) leave(source netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.waiting[source]--; q.waiting[source] == 0 {
		delete(q.waiting, source)
	}
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// verified remembers for a while who has shown the right password: programs send it with each request. It keeps no password
// but a keyed hash of it, under a key that never leaves the process.
type verified struct {
	life time.Duration
	key  []byte

	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time // guarded by mu
}

func newVerified(life time.Duration) *verified {
	v := &verified{life: life, key: make([]byte, 32), until: map[[sha256.Size]byte]time.Time{}}
	_, _ = rand.Read(v.key)
	return v
}

// choose returns a number below n for a name: the same each time, and another in each process.
func (v *verified) choose(name string, n int) int {
	mac := hmac.New(sha256.New, v.key)
	mac.Write([]byte("choose:" + name))
	return int(binary.BigEndian.Uint32(mac.Sum(nil)) % uint32(n))
}

// sumOf is what is kept of a name, a password and the hash it fits.
func (v *verified) sumOf(name, password string, hash []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, v.key)
	for _, part := range []string{name, password} {
		mac.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	mac.Write(hash)
	return [sha256.Size]byte(mac.Sum(nil))
}

// knows reports whether password was found to fit hash not long ago.
func (v *verified) knows(name, password string, hash []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	until, known := v.until[v.sumOf(name, password, hash)]
	return known && time.Now().Before(until)
}

// check reports whether password fits hash. hashing is held.
func (v *verified) check(name, password string, hash []byte) bool {
	if v.knows(name, password, hash) { // somebody who came before, with the same
		return true
	}
	if !passwordFits(hash, password) {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for s, t := range v.until { // few: one for each user
		if time.Now().After(t) {
			delete(v.until, s)
		}
	}
	v.until[v.sumOf(name, password, hash)] = time.Now().Add(v.life)
	return true
}

// maxWrongs is how many wrong credentials are remembered, of all sources.
const maxWrongs = 1024

// wrongs remembers which credentials were wrong, so that a program that shows those of yesterday each minute is not taken for one
// that guesses. It keeps no secret but a keyed hash of it, under a key that never leaves the process.
type wrongs struct {
	key []byte

	// Guarded by mu.
	mu     sync.Mutex
	known  map[[sha256.Size]byte]bool
	oldest [][sha256.Size]byte // in the order in which they came
}

func newWrongs() *wrongs {
	w := &wrongs{key: make([]byte, 32), known: map[[sha256.Size]byte]bool{}}
	_, _ = rand.Read(w.key)
	return w
}

func (w *wrongs) sumOf(source netip.Prefix, parts ...string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, w.key)
	for _, part := range append(parts, source.String()) {
		mac.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

// has reports whether a source has shown these before.
func (w *wrongs) has(source netip.Prefix, parts ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[w.sumOf(source, parts...)]
}

// add notes that a source has shown these, and reports whether it is for the first time. The oldest gives way.
func (w *wrongs) add(source netip.Prefix, parts ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := w.sumOf(source, parts...)
	if w.known[sum] {
		return false
	}
	if len(w.oldest) == maxWrongs {
		delete(w.known, w.oldest[0])
		w.oldest = append(w.oldest[:0], w.oldest[1:]...)
	}
	w.known[sum], w.oldest = true, append(w.oldest, sum)
	return true
}
