package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"awe4lb/config"
)

// saved is the list of one source as it outlives a Runner.
type saved struct {
	Source   string         `json:"source"`
	Good     time.Time      `json:"good"` // when the source last said so
	Backends []savedBackend `json:"backends"`
}

type savedBackend struct {
	Address        string            `json:"address"`
	Weight         int               `json:"weight"`
	Priority       int               `json:"priority,omitempty"`
	MaxConnections int               `json:"max_connections,omitempty"`
	Zone           string            `json:"zone,omitempty"`
	SNI            string            `json:"sni,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
}

type savedFile struct {
	Version int     `json:"version"`
	Pool    string  `json:"pool"`
	Sources []saved `json:"sources"`
}

const (
	savedVersion  = 1
	maxSavedBytes = 64 << 20
)

func toSaved(source string, good time.Time, list []Backend) saved {
	s := saved{Source: source, Good: good.Round(0), Backends: make([]savedBackend, len(list))}
	for i, b := range list {
		s.Backends[i] = savedBackend{b.Address.String(), b.Weight, b.Priority, b.MaxConnections, b.Zone, b.SNI, b.Labels}
	}
	return s
}

func (s *saved) list() ([]Backend, error) {
	list := make([]Backend, len(s.Backends))
	for i, b := range s.Backends {
		var a config.Address
		var err error
		if path, ok := strings.CutPrefix(b.Address, "unix:"); ok {
			a.Path = path
		} else if a, err = parseAddress(b.Address); err != nil {
			return nil, err
		}
		list[i] = Backend{a, b.Weight, b.Priority, b.MaxConnections, b.Zone, b.SNI, b.Labels}
		if err := list[i].Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", quote(b.Address), err)
		}
	}
	return normalise(list), nil
}

// readSaved returns what pool had; nothing when there is no such file. It does not trust the file more than a source.
func readSaved(path, pool string) ([]saved, error) {
	b, err := readFile(path, maxSavedBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := decodeSaved(b, pool)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

func decodeSaved(b []byte, pool string) ([]saved, error) {
	var f savedFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	switch {
	case f.Version != savedVersion:
		return nil, fmt.Errorf("version: got %d; want %d", f.Version, savedVersion)
	case f.Pool != pool:
		return nil, fmt.Errorf("pool: got %s; want %q: each pool needs a file of its own", quote(f.Pool), pool)
	}
	return f.Sources, nil
}

// writeSaved replaces the file as a whole: whoever reads it, also after a power cut, finds the old or the new.
func writeSaved(path, pool string, all []saved) (err error) {
	b, err := json.Marshal(savedFile{savedVersion, pool, all})
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // renamed, and that is what counts
	}
	defer d.Close()
	_ = d.Sync() // not every file system can
	return nil
}
