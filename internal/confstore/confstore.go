// Package confstore keeps configurations: the file that the process was started with, called main, and named ones in a folder
// beside it, each with the versions before it. It knows nothing of what is in them.
//
//	awe4lb.toml                 main
//	awe4lb.d/NAME.toml          the others
//	awe4lb.d/active             the name of the one that runs; absent: main
//	awe4lb.d/history/NAME/7     version 7, below one line that says when it was stored and by whom
//	awe4lb.d/files/             what the API may have configurations name; nothing here writes to it
//
// Names come from strangers, so that nothing but a name of ours becomes a path, and no symbolic link in the folder is followed.
// Files change whole or not at all. One process at a time writes: two that share a folder do not see each other.
package confstore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Main is the name of the file that the process was started with.
const Main = "main"

// What a stranger can make grow has a limit.
const (
	MaxSize     = 1 << 20 // bytes of a configuration
	MaxConfigs  = 100     // main apart
	MaxVersions = 32      // of each that are kept
	MaxHistory  = 8 << 20 // bytes of them
)

// What an error of this package is about. The others are the system's.
var (
	ErrName     = errors.New("want a name of letters, digits, '.', '_' and '-' that does not begin with a dot, at most 64")
	ErrNotFound = errors.New("no such configuration")
	ErrTooLarge = fmt.Errorf("larger than %d bytes", MaxSize)
	ErrTooMany  = fmt.Errorf("there are %d configurations already", MaxConfigs)
	ErrNotFile  = errors.New("not a regular file, such as a symbolic link")
	ErrIsMain   = errors.New("main is the file that the process was started with: it stays")
)

// Store is the configurations of a process. Safe from any goroutine.
type Store struct {
	main string                 // path
	dir  atomic.Pointer[string] // path; changed by reloads

	writing sync.Mutex // held while a file changes; readers find the old or the new
}

// New returns the configurations of a process that was started with the file at main. dir is the folder of the others; it is
// made when it is needed.
func New(main, dir string) *Store {
	s := &Store{main: main}
	s.Move(dir)
	return s
}

// Move makes dir the folder from now on; "" is awe4lb.d beside main.
func (s *Store) Move(dir string) {
	if dir == "" {
		dir = filepath.Join(filepath.Dir(s.main), "awe4lb.d")
	}
	s.dir.Store(&dir)
}

// Dir returns the folder.
func (s *Store) Dir() string { return *s.dir.Load() }

// Files returns the folder of files that any configuration may name.
func (s *Store) Files() string {
	path := filepath.Join(s.Dir(), "files")
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// Path returns where a configuration is, or would be.
func (s *Store) Path(name string) (string, error) {
	switch {
	case name == Main:
		return s.main, nil
	case !validName(name):
		return "", ErrName
	}
	return filepath.Join(s.Dir(), name+".toml"), nil
}

func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return name != "" && len(name) <= 64 && name[0] != '.'
}

// File is a configuration.
type File struct {
	Name    string
	Text    []byte
	Changed time.Time
}

// Tag tells texts apart, as long as the process lives. It is keyed: readers see it beside the text without its secrets, and could
// try passwords until the hash fits.
func Tag(text []byte) string {
	mac := hmac.New(sha256.New, tagKey)
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

var tagKey = []byte(rand.Text())

// Read returns a configuration. It fails with ErrName, ErrNotFound, ErrTooLarge, ErrNotFile or what the system says.
func (s *Store) Read(name string) (*File, error) {
	path, err := s.Path(name)
	if err != nil {
		return nil, err
	}
	flags := syscall.O_NOFOLLOW
	if name == Main { // whoever started the process chose it
		flags = 0
	}
	text, info, err := readFile(path, flags, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &File{name, text, info.ModTime()}, nil
}

func readFile(path string, flags, most int) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0)
	if errors.Is(err, syscall.ELOOP) {
		err = ErrNotFile
	}
	if err != nil {
		return nil, nil, reason(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, reason(err)
	case !info.Mode().IsRegular():
		return nil, nil, ErrNotFile
	case info.Size() > int64(most):
		return nil, nil, ErrTooLarge
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = ErrTooLarge
	}
	return text, info, err
}

// reason returns an error of a file without its path, which is nobody's business who calls the API.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// List returns the configurations, main first and the others by name; those that cannot be read are left out.
func (s *Store) List() ([]*File, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var all []*File
	for _, name := range append([]string{Main}, names...) {
		if f, err := s.Read(name); err == nil {
			all = append(all, f)
		}
	}
	return all, nil
}

// names returns the names of what is in the folder.
func (s *Store) names() ([]string, error) {
	entries, err := os.ReadDir(s.Dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, reason(err)
	}
	var names []string
	for _, e := range entries {
		name, isConfig := strings.CutSuffix(e.Name(), ".toml")
		if isConfig && validName(name) && name != Main && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), MaxConfigs)], nil
}

// Remove deletes a configuration with its history. match, called with the tag of what is there, may object.
func (s *Store) Remove(name string, match func(tag string) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	f, err := s.Read(name)
	if err != nil {
		return err
	}
	if err := match(Tag(f.Text)); err != nil {
		return err
	}
	if name == Main {
		return ErrIsMain
	}
	path, _ := s.Path(name)
	if err := os.Remove(path); err != nil {
		return reason(err)
	}
	return reason(os.RemoveAll(s.historyOf(name)))
}

// Selected returns the name of the configuration that is to run.
func (s *Store) Selected() (string, error) {
	text, _, err := readFile(filepath.Join(s.Dir(), "active"), syscall.O_NOFOLLOW, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return Main, nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(s.Dir(), "active"), err)
	}
	name := strings.TrimSpace(string(text))
	if name != Main && !validName(name) {
		return "", fmt.Errorf("%s: %w", filepath.Join(s.Dir(), "active"), ErrName)
	}
	return name, nil
}

// Select makes a configuration the one that is to run, also after the next start.
func (s *Store) Select(name string) error {
	if _, err := s.Path(name); err != nil {
		return err
	}
	path := filepath.Join(s.Dir(), "active")
	if name == Main {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return reason(err)
		}
		return nil
	}
	if err := os.MkdirAll(s.Dir(), 0o700); err != nil {
		return reason(err)
	}
	w, err := newWrite(path, []byte(name+"\n"))
	if err != nil {
		return err
	}
	return w.commit()
}
