package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/config"
)

// TestUnixBindLeavesFilesAlone: a path that was mistyped, and is an ordinary file, costs nobody that file.
func TestUnixBindLeavesFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, nil, nil)
	bind := func(c *config.Config) { c.Frontends[0].Addresses = []config.Address{{Path: path}} }
	_, err := r.d.Apply(testConfig(nil, bind))
	if err == nil || !strings.Contains(err.Error(), "frontends.f.bind: unix:"+path+": a regular file is in the way") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Fatalf("the file: %q, %v", b, err)
	}

	// Nor at the end, should it have taken the socket's place.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.apply(testConfig(nil, bind))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.apply(testConfig(nil, nil))
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("the file: %q, %v", b, err)
	}
}
