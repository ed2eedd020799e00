package confstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Version is a configuration as it was stored once.
type Version struct {
	Number int // from 1; the latest is the highest
	Time   time.Time
	Who    string // "" when it was not by the API
	Size   int    // bytes
}

// mark begins the first line of a version, which is not part of the configuration.
const mark = "# awe4lb: stored "

func (s *Store) historyOf(name string) string { return filepath.Join(s.Dir(), "history", name) }

// Versions returns the versions of a configuration that are kept, the latest first.
func (s *Store) Versions(name string) ([]Version, error) {
	if _, err := s.Read(name); err != nil {
		return nil, err
	}
	var all []Version
	numbers, err := s.numbers(name)
	for _, n := range slices.Backward(numbers) {
		if v, _, err := s.version(name, n); err == nil {
			all = append(all, v)
		}
	}
	return all, err
}

// errNoVersion is ErrNotFound of a configuration that may well be there.
var errNoVersion error = noVersion{}

type noVersion struct{}

func (noVersion) Error() string { return "no such version; its history lists those there are" }

func (noVersion) Is(target error) bool { return target == ErrNotFound }

// Version returns a version and its text, or fails with ErrNotFound.
func (s *Store) Version(name string, number int) (Version, []byte, error) {
	if _, err := s.Path(name); err != nil {
		return Version{}, nil, err
	}
	return s.version(name, number)
}

func (s *Store) version(name string, number int) (v Version, text []byte, err error) {
	text, _, err = readFile(filepath.Join(s.historyOf(name), strconv.Itoa(number)), syscall.O_NOFOLLOW, MaxSize+1024)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoVersion
	}
	if err != nil {
		return v, nil, fmt.Errorf("version %d of %s: %w", number, name, err)
	}
	head, text, _ := bytes.Cut(text, []byte("\n"))
	when, who, _ := strings.Cut(strings.TrimPrefix(string(head), mark), " by ")
	v = Version{Number: number, Who: who, Size: len(text)}
	if v.Time, err = time.Parse(time.RFC3339, when); err != nil {
		return v, nil, fmt.Errorf("version %d of %s: its first line is not ours", number, name)
	}
	return v, text, nil
}

// numbers returns the versions there are, the oldest first.
func (s *Store) numbers(name string) ([]int, error) {
	entries, err := os.ReadDir(s.historyOf(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, reason(err)
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && e.Type().IsRegular() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// remember adds a version, unless the latest is the same, and forgets the oldest where there are too many.
func (s *Store) remember(name string, text []byte, who string) error {
	numbers, err := s.numbers(name)
	if err != nil {
		return err
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
		if _, last, err := s.version(name, next-1); err == nil && bytes.Equal(last, text) {
			return nil
		}
	}
	head := mark + time.Now().UTC().Format(time.RFC3339)
	if who != "" {
		head += " by " + strings.Map(printable, who[:min(len(who), 256)])
	}
	w, err := newWrite(filepath.Join(s.historyOf(name), strconv.Itoa(next)), append([]byte(head+"\n"), text...))
	if err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	return s.forget(name, append(numbers, next))
}

func printable(r rune) rune {
	if strconv.IsPrint(r) {
		return r
	}
	return '?'
}

// forget removes the oldest versions until what is left is within the limits.
func (s *Store) forget(name string, numbers []int) error {
	size, kept := int64(0), 0
	for _, n := range slices.Backward(numbers) {
		path := filepath.Join(s.historyOf(name), strconv.Itoa(n))
		info, err := os.Lstat(path)
		if err == nil {
			size += info.Size()
		}
		if kept++; kept <= MaxVersions && (size <= MaxHistory || kept == 1) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return reason(err)
		}
	}
	return nil
}
