package confstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "awe4lb.toml")
	if err := os.WriteFile(path, []byte("main 1"), 0o640); err != nil {
		t.Fatal(err)
	}
	return New(path, "")
}

func anyTag(string) error { return nil }

func put(t *testing.T, s *Store, name, text string) {
	t.Helper()
	st, err := s.Stage(name, []byte(text), "bearer:ops", anyTag)
	if err == nil {
		err = st.Commit()
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func read(t *testing.T, s *Store, name string) string {
	t.Helper()
	f, err := s.Read(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(f.Text)
}

func TestNames(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"a", "A-b_c.9", "0", strings.Repeat("x", 64)} {
		put(t, s, name, name)
	}
	for _, name := range []string{"", ".", "..", ".x", "a/b", "../x", "a\x00", "a b", "ä", `a\b`, strings.Repeat("x", 65)} {
		_, err1 := s.Read(name)
		_, err2 := s.Stage(name, nil, "", anyTag)
		_, _, err3 := s.Version(name, 1)
		for _, err := range []error{err1, err2, err3, s.Remove(name, anyTag), s.Select(name)} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func TestModesAndLinks(t *testing.T) {
	s := newStore(t)
	put(t, s, "a", "text")
	put(t, s, Main, "main 2")
	for path, want := range map[string]os.FileMode{
		s.Dir(): 0o700, filepath.Join(s.Dir(), "a.toml"): 0o600, s.historyOf("a"): 0o700, filepath.Join(s.historyOf("a"), "1"): 0o600, s.main: 0o640,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(s.Dir(), "link.toml"), filepath.Join(s.historyOf("a"), "9"), filepath.Join(s.Dir(), "active")} {
		if err := os.Symlink(secret, path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Read("link"); !errors.Is(err, ErrNotFile) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Stage("link", []byte("x"), "", anyTag); !errors.Is(err, ErrNotFile) {
		t.Errorf("stage: %v", err)
	}
	if _, _, err := s.Version("a", 9); !errors.Is(err, ErrNotFile) {
		t.Errorf("version: %v", err)
	}
	if _, err := s.Selected(); !errors.Is(err, ErrNotFile) {
		t.Errorf("selected: %v", err)
	}
	if list, err := s.List(); len(list) != 2 || err != nil {
		t.Errorf("%d configurations, %v", len(list), err)
	}
	if b, err := os.ReadFile(secret); string(b) != "secret" || err != nil {
		t.Errorf("%q %v", b, err)
	}

	// main may be a link for who started the process; but to write would be to put a file in its place.
	other := filepath.Join(t.TempDir(), "link.toml")
	if err := os.Symlink(s.main, other); err != nil {
		t.Fatal(err)
	}
	linked := New(other, "")
	if got := read(t, linked, Main); got != "main 2" {
		t.Errorf("got %q", got)
	}
	if _, err := linked.Stage(Main, []byte("x"), "", anyTag); !errors.Is(err, ErrNotFile) {
		t.Errorf("stage: %v", err)
	}
}

func TestLimits(t *testing.T) {
	s := newStore(t)
	if _, err := s.Stage("a", make([]byte, MaxSize+1), "", anyTag); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for i := range MaxConfigs {
		put(t, s, fmt.Sprint("c", i), "x")
	}
	if _, err := s.Stage("more", nil, "", anyTag); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	put(t, s, "c0", "changed all the same")
	if err := s.Remove("c1", anyTag); err != nil {
		t.Fatal(err)
	}
	put(t, s, "more", "x")
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	if all, err := s.Versions(Main); len(all) != 0 || err != nil {
		t.Errorf("%v %v", all, err)
	}
	put(t, s, Main, "main 2")
	put(t, s, Main, "main 2") // no version of its own
	all, err := s.Versions(Main)
	if err != nil || len(all) != 2 || all[0].Number != 2 || all[0].Who != "bearer:ops" || all[1].Who != "" || all[1].Size != len("main 1") {
		t.Fatalf("%+v %v", all, err)
	}
	if _, text, err := s.Version(Main, 1); string(text) != "main 1" || err != nil {
		t.Errorf("version 1: %q %v", text, err)
	}
	if err := os.WriteFile(s.main, []byte("by hand"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, Main, "main 4")
	if _, text, err := s.Version(Main, 3); string(text) != "by hand" || err != nil {
		t.Errorf("what was written by hand is not kept: %q %v", text, err)
	}
	for i := range 2 * MaxVersions {
		put(t, s, "a", fmt.Sprint("text ", i))
	}
	if all, _ = s.Versions("a"); len(all) != MaxVersions || all[0].Number != 2*MaxVersions {
		t.Errorf("%d versions, the last is %d", len(all), all[0].Number)
	}
	for i := range 12 {
		put(t, s, "large", strings.Repeat(fmt.Sprint(i%10), MaxSize))
	}
	if all, _ = s.Versions("large"); len(all) != MaxHistory/MaxSize-1 { // each has a line more
		t.Errorf("%d large versions", len(all))
	}
	if _, _, err := s.Version("a", 1); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// TestDiscard: nothing has happened, and the next can write.
func TestDiscard(t *testing.T) {
	s := newStore(t)
	st, err := s.Stage(Main, []byte("main 2"), "", anyTag)
	if err != nil {
		t.Fatal(err)
	}
	st.Discard()
	if err := st.Commit(); err != nil || read(t, s, Main) != "main 1" {
		t.Errorf("%q %v", read(t, s, Main), err)
	}
	entries, err := os.ReadDir(filepath.Dir(s.main))
	if err != nil || len(entries) != 2 { // and the folder
		t.Errorf("left behind: %v %v", entries, err)
	}
	put(t, s, Main, "main 3")
}

// TestTwoWriters: of those who know the same version, one writes.
func TestTwoWriters(t *testing.T) {
	s := newStore(t)
	conflict := errors.New("conflict")
	for round := range 20 {
		tag := Tag([]byte(read(t, s, Main)))
		var wrote sync.Map
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				st, err := s.Stage(Main, []byte(fmt.Sprint(round, " ", i)), "", func(now string) error {
					if now != tag {
						return conflict
					}
					return nil
				})
				if err == nil {
					err = st.Commit()
					wrote.Store(i, true)
				}
				if err != nil && !errors.Is(err, conflict) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		n := 0
		wrote.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Fatalf("%d of 8 wrote", n)
		}
	}
}

func TestSelect(t *testing.T) {
	s := newStore(t)
	if err := s.Select(Main); err != nil {
		t.Fatal(err) // there is no folder
	}
	put(t, s, "a", "text")
	for _, name := range []string{"a", Main, "a"} {
		if err := s.Select(name); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Selected(); got != name || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, name)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "active"), []byte("../../etc/passwd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Selected(); !errors.Is(err, ErrName) {
		t.Error(err)
	}
}

// TestTagsTellNothing: who knows all of a text but a password cannot try passwords with the tag.
func TestTagsTellNothing(t *testing.T) {
	text := []byte("password = \"x\"\n")
	sum := sha256.Sum256(text)
	if got := Tag(text); got == hex.EncodeToString(sum[:16]) {
		t.Error("a hash that anybody can make")
	} else if got != Tag([]byte(string(text))) || got == Tag(append(text, ' ')) {
		t.Error("it does not tell texts apart")
	}
}
