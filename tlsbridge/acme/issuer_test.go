package acme

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/tlsbridge/certs"
)

var _ certs.Issuer = (*Issuer)(nil)

const www = "www.example.com"

func TestAnswersAreFoundWithoutAllocation(t *testing.T) {
	i := New(new(logged).logger())
	i.challenges.change(func(a *answers) { a.byToken["token"] = "answer" })
	i.challenges.others.Store(i.challenges.own.Load())
	if n := testing.AllocsPerRun(100, func() {
		if answer, ok := i.HTTP01("token"); !ok || answer != "answer" {
			t.Error("no answer")
		}
		if _, ok := i.HTTP01("other"); ok {
			t.Error("an answer to nobody's question")
		}
		if i.Certificate(www) != nil {
			t.Error("a certificate from nowhere")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBackoff(t *testing.T) {
	for _, answered := range []bool{false, true} {
		var before time.Duration
		for n := 1; n < 20; n++ {
			d := backoff(n, answered)
			if d < before*4/5 || d > 7*time.Hour || d < 50*time.Second {
				t.Errorf("after failure %d: %v, before it %v", n, d, before)
			}
			before = d
		}
	}
}

func TestLocksEndWithTheirContext(t *testing.T) {
	s, err := openStorage(t.TempDir(), new(logged).logger())
	if err != nil {
		t.Fatal(err)
	}
	other, err := openStorage(s.Path, new(logged).logger())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := other.Lock(ctx, "x"); err == nil {
		t.Error("two have the lock")
	}
	if err := s.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := other.Lock(ctx, "x"); err != nil {
		t.Errorf("nobody has it: %v", err)
	}
	if err := other.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := other.Unlock(ctx, "x"); err == nil {
		t.Error("gave up a lock it does not have")
	}
}

func TestOpenStorageClosesItToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "certificates"), 0o755), os.WriteFile(filepath.Join(dir, "x.key"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	log := new(logged)
	if _, err := openStorage(dir, log.logger()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, "certificates": 0o700, "x.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v %v; want %v", path, info.Mode(), err, want)
		}
	}
	if log.count("were open to others") != 1 {
		t.Errorf("log: %s", log)
	}
	if _, err := openStorage(dir, log.logger()); err != nil || log.count("were open to others") != 1 {
		t.Errorf("again: %v %s", err, log)
	}
}

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logged) count(text string) int { return strings.Count(l.String(), text) }
