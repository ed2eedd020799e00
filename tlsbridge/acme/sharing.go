package acme

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// The CA may ask any of the processes behind a name, whoever has ordered: so the answers are in the storage, too, while an
// order goes on, and each process reads there those of the others.
const (
	challengesFolder = "challenges"
	sharePoll        = time.Second    // how often a process reads
	shareStale       = 24 * time.Hour // older files are of processes that have died
)

// solver is what acmez gives challenges to. It binds no port: the answer goes where frontends read it.
type solver struct {
	challenges *challenges
	storage    *storage
	pause      time.Duration // how long until the others have read the answer
}

// solvers returns one for each kind of challenge.
func solvers(c *challenges, s *storage, pause time.Duration) map[string]acmez.Solver {
	one := solver{c, s, pause}
	return map[string]acmez.Solver{acme.ChallengeTypeHTTP01: one, acme.ChallengeTypeTLSALPN01: one}
}

func of(c acme.Challenge) *challenge {
	return &challenge{c.Type, canonical(c.Identifier.Value), c.Token, c.KeyAuthorization}
}

func (ch *challenge) file() string {
	return path.Join(challengesFolder, certmagic.StorageKeys.Safe(ch.Token)+".json")
}

// Present makes the answer known, here and to the others.
func (s solver) Present(ctx context.Context, c acme.Challenge) error {
	ch := of(c)
	var err error
	s.challenges.change(func(a *answers) { err = a.add(ch) })
	if err != nil {
		return err
	}
	b, err := json.Marshal(ch)
	if err != nil {
		return err
	}
	return s.storage.Store(ctx, ch.file(), b)
}

// Wait returns when the others have had the time to read it; then the CA is told to ask.
func (s solver) Wait(ctx context.Context, _ acme.Challenge) error {
	select {
	case <-time.After(s.pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CleanUp forgets the answer.
func (s solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	ch := of(c)
	s.challenges.change(func(a *answers) { a.remove(ch) })
	return s.storage.Delete(context.WithoutCancel(ctx), ch.file())
}

// watch is a goroutine of an engine: it reads the answers of the others as they come and go. A look at an empty folder costs
// 7 µs (2026-11-25).
func (e *engine) watch() {
	ticker := time.NewTicker(e.issuer.sharePoll)
	defer ticker.Stop()
	var seen []string
	for {
		seen = e.readAnswers(seen)
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			return
		}
	}
}

// readAnswers makes the answers in the folder those of the others, unless it has the files seen before; it returns the
// files.
func (e *engine) readAnswers(seen []string) []string {
	entries, err := os.ReadDir(filepath.Join(e.storage.Path, challengesFolder))
	if err != nil && !os.IsNotExist(err) {
		return seen
	}
	var files []string
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > shareStale {
			e.storage.Delete(e.ctx, path.Join(challengesFolder, entry.Name())) //nolint:errcheck // the next look tries again
		} else if filepath.Ext(entry.Name()) == ".json" {
			files = append(files, entry.Name())
		}
	}
	if slices.Equal(files, seen) {
		return seen
	}
	found := &answers{byToken: map[string]string{}, byName: map[string]tlsALPNResponse{}}
	for _, file := range files {
		var ch challenge
		b, err := e.storage.Load(e.ctx, path.Join(challengesFolder, file))
		if err != nil || json.Unmarshal(b, &ch) != nil || found.add(&ch) != nil {
			continue // gone again
		}
	}
	e.issuer.challenges.others.Store(found)
	return files
}
