package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// replaceInterval is how often an account that the CA has ended is replaced without asking: a CA that ends accounts again
// and again has its reasons, and limits how many an address may register.
const replaceInterval = 24 * time.Hour

// errAccountEnded says that a person has to look.
var errAccountEnded = errors.New("the CA has ended our account")

// accounts keeps our account at one CA: one for each email and external binding, in the storage, for all processes that
// use it.
//
//	none ──register──▶ kept ──the CA has ended it──▶ set aside, once in replaceInterval ──register──▶ kept
type accounts struct {
	// Set once, never changed.
	authority *authority
	storage   *storage

	// Guarded by mu, which is held while registering: the others wait for the outcome.
	mu      sync.Mutex
	current acme.Account // no Location: not loaded yet
}

// folder is the account's place in the storage.
func (a *accounts) folder() string {
	s := &a.authority.settings
	who := "default"
	if s.Email != "" {
		who = s.Email
	}
	if s.EABKeyID != "" {
		who += "_" + s.EABKeyID
	}
	keys := certmagic.StorageKeys
	return path.Join("accounts", keys.Safe(a.authority.key), keys.Safe(who))
}

// get returns the account, registered if there was none.
func (a *accounts) get(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.Location != "" {
		return a.current, nil
	}
	lock := "account_" + a.folder()
	if err := a.storage.Lock(ctx, lock); err != nil {
		return acme.Account{}, fmt.Errorf("acme.storage: %w", err)
	}
	defer a.storage.Unlock(ctx, lock) //nolint:errcheck // closes a file
	account, err := a.load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		account, err = a.register(ctx, client)
	}
	if err == nil {
		a.current = account
	}
	return account, err
}

// load reads the account from the storage.
func (a *accounts) load(ctx context.Context) (acme.Account, error) {
	var account acme.Account
	b, err := a.storage.Load(ctx, path.Join(a.folder(), "account.json"))
	if err != nil {
		return account, err
	}
	if err := json.Unmarshal(b, &account); err != nil {
		return account, fmt.Errorf("acme.storage: %s/account.json: %w; remove the folder to register another account", a.folder(), err)
	}
	key, err := a.storage.Load(ctx, path.Join(a.folder(), "account.key"))
	if err != nil {
		return account, err
	}
	if account.PrivateKey, err = certmagic.PEMDecodePrivateKey(key); err != nil {
		return account, fmt.Errorf("acme.storage: %s/account.key: %w; remove the folder to register another account", a.folder(), err)
	}
	return account, nil
}

// store writes an account into a folder of the storage; the key first, so that a whole account.json has one.
func (a *accounts) store(ctx context.Context, folder string, account acme.Account) error {
	key, err := certmagic.PEMEncodePrivateKey(account.PrivateKey)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(account, "", "\t")
	if err != nil {
		return err
	}
	if err := a.storage.Store(ctx, path.Join(folder, "account.key"), key); err != nil {
		return err
	}
	return a.storage.Store(ctx, path.Join(folder, "account.json"), b)
}

// register makes a new account at the CA, with a new key.
func (a *accounts) register(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	s := &a.authority.settings
	account := acme.Account{TermsOfServiceAgreed: s.Agree}
	if s.Email != "" {
		account.Contact = []string{"mailto:" + s.Email}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return account, err
	}
	account.PrivateKey = key
	if s.EABKeyID != "" {
		// CAs show the key with or without padding, in either alphabet of base64.
		mac := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSpace(s.EABHMAC)), "=")
		if err := account.SetExternalAccountBinding(ctx, client.Client, acme.EAB{KeyID: s.EABKeyID, MACKey: mac}); err != nil {
			return account, err
		}
	}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return account, registrationError{err}
	}
	if account.Status == "" {
		account.Status = acme.StatusValid // it is required, and some CAs leave it out
	}
	if err := a.store(ctx, a.folder(), account); err != nil {
		return account, fmt.Errorf("acme.storage: %w", err)
	}
	a.authority.log.Info("account registered with the CA", "directory", s.Directory, "account", account.Location)
	return account, nil
}

// registrationError says that it was the account that the CA did not like.
type registrationError struct{ error }

func (e registrationError) Unwrap() error { return e.error }

// replace finds out whether an attempt failed because the CA knows account no more, has deactivated or revoked it, and if
// so sets it aside: the next get registers another. It reports whether it did, or somebody else has.
func (a *accounts) replace(ctx context.Context, client *acmez.Client, account acme.Account, cause error) (bool, error) {
	var problem acme.Problem
	if !errors.As(cause, &problem) || problem.Type != acme.ProblemTypeAccountDoesNotExist && problem.Type != acme.ProblemTypeUnauthorized {
		return false, nil
	}
	if _, validation := problem.Resource.(acme.Authorization); validation {
		return false, nil // it is the name that it did not find to be ours
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.Location != account.Location {
		return true, nil
	}
	lock := "account_" + a.folder()
	if err := a.storage.Lock(ctx, lock); err != nil {
		return false, fmt.Errorf("acme.storage: %w", err)
	}
	defer a.storage.Unlock(ctx, lock) //nolint:errcheck // closes a file
	if stored, err := a.load(ctx); err == nil && stored.Location != account.Location {
		a.current = stored // by another process
		return true, nil
	}
	switch found, err := client.GetAccount(ctx, acme.Account{PrivateKey: account.PrivateKey}); {
	case err == nil && found.Status != acme.StatusDeactivated && found.Status != acme.StatusRevoked:
		return false, nil // alive: the cause is another one
	case err != nil && (!errors.As(err, &problem) ||
		problem.Type != acme.ProblemTypeAccountDoesNotExist && problem.Type != acme.ProblemTypeUnauthorized):
		return false, nil // it does not tell
	}
	ended := a.folder() + ".ended"
	if info, err := a.storage.Stat(ctx, path.Join(ended, "account.json")); err == nil && time.Since(info.Modified) < replaceInterval {
		return false, fmt.Errorf("%w, the second within %v: %w", errAccountEnded, replaceInterval, cause)
	}
	if err := a.store(ctx, ended, account); err != nil {
		return false, fmt.Errorf("acme.storage: %w", err)
	}
	if err := a.storage.Delete(ctx, a.folder()); err != nil {
		return false, fmt.Errorf("acme.storage: %w", err)
	}
	a.current = acme.Account{}
	a.authority.log.Warn("the CA has ended our account, or has lost it; registering another", "directory", a.authority.settings.Directory,
		"account", account.Location, "reason", problem.Detail)
	return true, nil
}
