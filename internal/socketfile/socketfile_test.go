package socketfile

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// left returns a socket file that nobody listens on.
func left(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestMakeWay(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	if err := MakeWay(at("nothing")); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	left(t, at("left"))
	if err := MakeWay(at("left")); err != nil || exists(at("left")) {
		t.Errorf("a socket nobody listens on: %v, still there: %v", err, exists(at("left")))
	}
	l, err := net.Listen("unix", at("used"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := MakeWay(at("used")); !errors.Is(err, syscall.EADDRINUSE) || !exists(at("used")) {
		t.Errorf("a socket in use: %v", err)
	}
	d, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at("datagram"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := MakeWay(at("datagram")); err != nil || !exists(at("datagram")) {
		t.Errorf("a socket of another kind: %v, still there: %v", err, exists(at("datagram")))
	}
}

func TestNothingButSocketsIsRemoved(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	left(t, at("socket"))
	if err := os.Symlink(at("socket"), at("link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"file": "a regular file is", "directory": "a directory is",
		"pipe": "something that is no socket is", "link": "a symbolic link is"} {
		err := MakeWay(at(name))
		if err == nil || !strings.Contains(err.Error(), want+" in the way at "+at(name)) {
			t.Errorf("%s: got %v", name, err)
		}
		Remove(at(name))
		if !exists(at(name)) {
			t.Errorf("%s was removed", name)
		}
	}
	Remove(at("socket"))
	if exists(at("socket")) {
		t.Error("the socket was not removed")
	}
}
