package discovery

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, s Source, want string) {
	t.Helper()
	list, err := s.Fetch(t.Context())
	if got := show(list); err != nil || got != want {
		t.Fatalf("got %s %v; want %s", got, err, want)
	}
}

func fetchFails(t *testing.T, s Source, reason, want string) {
	t.Helper()
	list, err := s.Fetch(t.Context())
	if err == nil || ReasonOf(err) != reason || !strings.Contains(err.Error(), want) || len(list.Backends) != 0 {
		t.Fatalf("got %s %v (%s); want %s: %s", show(list), err, ReasonOf(err), reason, want)
	}
}

func TestFile(t *testing.T) {
	lbtest.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "web.txt")
	write(t, path, "10.0.0.1:80")
	s, err := NewFile(FileOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, s, "10.0.0.1:80 1/0/0")
	time.Sleep(60 * time.Millisecond) // until the kernel's clock tells two writes apart, see read
	fetch(t, s, "10.0.0.1:80 1/0/0")

	// Written in place: read once two looks have found the same.
	write(t, path, "10.0.0.1:80\n10.0.0.")
	fetch(t, s, "10.0.0.1:80 1/0/0")
	write(t, path, "10.0.0.1:80\n10.0.0.2:80\n")
	fetch(t, s, "10.0.0.1:80 1/0/0")
	fetch(t, s, "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0")

	// Renamed into place, many times, with the same size.
	for _, n := range []string{"3", "4", "5"} {
		write(t, path+".new", "10.0.0.1:80\n10.0.0."+n+":80\n")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		_, _ = s.Fetch(t.Context())
		fetch(t, s, "10.0.0.1:80 1/0/0, 10.0.0."+n+":80 1/0/0")
	}

	// Nonsense stays an error without being read again, until it is put right.
	write(t, path, "nonsense")
	_, _ = s.Fetch(t.Context())
	fetchFails(t, s, ReasonDecode, path+": text: line 1")
	fetchFails(t, s, ReasonDecode, path+": text: line 1")
	write(t, path, "")
	_, _ = s.Fetch(t.Context())
	fetch(t, s, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	write(t, path, "10.0.0.9:80")
	fetch(t, s, "10.0.0.9:80 1/0/0")
}

// TestFileByLink: what Kubernetes does to a mounted config map.
func TestFileByLink(t *testing.T) {
	dir := t.TempDir()
	put := func(n string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, n, "web.json"), `["10.0.0.`+n+`:80"]`)
		if err := errors.Join(os.Symlink(n, filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data"))); err != nil {
			t.Fatal(err)
		}
	}
	put("1")
	s, err := NewFile(FileOptions{Path: filepath.Join(dir, "data", "web.json")})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, s, "10.0.0.1:80 1/0/0")
	put("2")
	_, _ = s.Fetch(t.Context())
	fetch(t, s, "10.0.0.2:80 1/0/0")
}

func TestOddFiles(t *testing.T) {
	lbtest.CheckLeaks(t)
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big.toml")
	write(t, big, strings.Repeat("#", 101))
	for _, c := range []struct{ path, reason, want string }{
		{pipe, ReasonOther, "got a pipe; want a regular file"},
		{dir, ReasonOther, "got a folder; want a regular file"},
		{"/dev/zero", ReasonOther, "got a device; want a regular file"},
		{big, ReasonTooLarge, "more than 100 bytes"},
	} {
		s, err := NewFile(FileOptions{Path: c.path, MaxBytes: 100})
		if err != nil {
			t.Fatal(err)
		}
		fetchFails(t, s, c.reason, c.want)
	}
	if _, err := NewFile(FileOptions{Path: "web.txt"}); err == nil {
		t.Error("a relative path is taken")
	}
}

// TestRunnerWithFile is the two together, with real time.
func TestRunnerWithFile(t *testing.T) {
	lbtest.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "web.toml")
	write(t, path, `backends = [{ address = "10.0.0.1:80" }]`)
	s, err := NewFile(FileOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	set := Defaults()
	set.Interval, set.Debounce = 100*time.Millisecond, time.Millisecond
	r, err := New("web", []Source{s}, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reports, done := make(chan []Backend, 10), make(chan struct{})
	go func() { r.Run(ctx, func(l []Backend) { reports <- l }); close(done) }()
	if l := <-reports; len(l) != 1 {
		t.Error(l)
	}
	write(t, path, `backends = [{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80" }]`)
	if l := <-reports; len(l) != 2 {
		t.Error(l)
	}
	cancel()
	<-done
}
