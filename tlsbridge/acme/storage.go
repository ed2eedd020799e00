package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"awe4lb/tlsbridge"
)

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = time.Second

// storage is certmagic's folder of files, with locks of our own: certmagic's are files with a time stamp that a goroutine
// refreshes until five seconds after the end, and that stay behind when a process dies. flock(2) ends with the process,
// and nodes that share the folder over NFS see each other's.
type storage struct {
	*certmagic.FileStorage

	// Guarded by mu.
	mu    sync.Mutex
	locks map[string]*os.File // those we hold
}

// openStorage returns the folder at path, made if it is not there. What others could read or write is closed to them: the
// folder holds private keys. It fails when that, or writing, is not possible.
func openStorage(path string, log *slog.Logger) (*storage, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("acme.storage: %w", err)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("acme.storage: %w", err)
	}
	var closed []string
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process tidies up
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			if err := os.Chmod(file, mode&0o700); err != nil {
				return fmt.Errorf("mode %04o, others have access to it and it may hold private keys; want %04o: %w", mode, mode&0o700, err)
			}
			if !d.IsDir() {
				closed = append(closed, file)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("acme.storage: %s: %w", path, err)
	}
	if len(closed) > 0 {
		log.Warn("files in acme.storage were open to others: if they are private keys, others may have them", "first", closed[0], "files", len(closed))
	}
	probe, err := os.CreateTemp(path, ".writable-")
	if err != nil {
		return nil, fmt.Errorf("acme.storage: want a folder that this user may write to: %w", err)
	}
	probe.Close()
	os.Remove(probe.Name())
	return &storage{FileStorage: &certmagic.FileStorage{Path: path}, locks: map[string]*os.File{}}, nil
}

// Lock waits until name is ours alone, among all processes that use the folder.
func (s *storage) Lock(ctx context.Context, name string) error {
	path := filepath.Join(s.Path, "locks", certmagic.StorageKeys.Safe(name)+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return fmt.Errorf("flock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	s.mu.Lock()
	s.locks[name] = file
	s.mu.Unlock()
	return nil
}

// Unlock gives up a lock. The file stays: to remove it would let two have it.
func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	file := s.locks[name]
	delete(s.locks, name)
	s.mu.Unlock()
	if file == nil {
		return fmt.Errorf("no lock %q is held", name)
	}
	return file.Close()
}

// certificate returns the certificate for a name from the CA of that key, checked as for a frontend. Without one the error
// is fs.ErrNotExist; any other error means that the files are of no use.
func (s *storage) certificate(ctx context.Context, issuer, name string) (*tlsbridge.Certificate, error) {
	keys := certmagic.StorageKeys
	chain, err := s.Load(ctx, keys.SiteCert(issuer, name))
	if err != nil {
		return nil, err
	}
	key, err := s.Load(ctx, keys.SitePrivateKey(issuer, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("a certificate without its private key")
	}
	if err != nil {
		return nil, err
	}
	// certmagic wants it to renew; to us it says nothing.
	meta, err := s.Load(ctx, keys.SiteMeta(issuer, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !json.Valid(meta) {
		return nil, errors.New("a certificate with unreadable metadata")
	}
	c, err := tlsbridge.ParseCertificate(chain, key)
	if err != nil {
		return nil, err
	}
	if err := c.Leaf().VerifyHostname(name); err != nil {
		return nil, err
	}
	return c, nil
}

// renewalInfo returns what the CA said when it issued the certificate for a name, or nothing.
func (s *storage) renewalInfo(ctx context.Context, issuer, name string) acme.RenewalInfo {
	var resource struct {
		Certificate acme.Certificate `json:"issuer_data"`
	}
	b, err := s.Load(ctx, certmagic.StorageKeys.SiteMeta(issuer, name))
	if err != nil || json.Unmarshal(b, &resource) != nil || resource.Certificate.RenewalInfo == nil {
		return acme.RenewalInfo{}
	}
	return *resource.Certificate.RenewalInfo
}

// certificateOfOthers returns the certificate for a name that lasts longest among those from CAs other than issuer, or nil.
func (s *storage) certificateOfOthers(ctx context.Context, issuer, name string) *tlsbridge.Certificate {
	dirs, err := os.ReadDir(filepath.Join(s.Path, "certificates"))
	if err != nil {
		return nil
	}
	var best *tlsbridge.Certificate
	for _, dir := range dirs {
		if dir.Name() == certmagic.StorageKeys.Safe(issuer) {
			continue
		}
		c, err := s.certificate(ctx, dir.Name(), name)
		if err == nil && (best == nil || c.NotAfter.After(best.NotAfter)) {
			best = c
		}
	}
	return best
}

// discard removes files of a certificate that are of no use: certmagic takes them for a certificate as long as they exist.
func (s *storage) discard(ctx context.Context, issuer, name string) error {
	return s.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(issuer, name))
}
