package discovery

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestFilesAreFiles: what a source is configured with is read without waiting for anybody: a pipe that nobody writes to would
// hold up the fetch, and with it a reload, for ever.
func TestFilesAreFiles(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(name string, read func(path string) error) {
		t.Helper()
		for path, want := range map[string]string{pipe: "got a pipe; want a regular file", filepath.Dir(pipe): "got a folder; want a regular file"} {
			done := make(chan error, 1)
			go func() { done <- read(path) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) != 1 {
					t.Errorf("%s: got %v; want %s: %s", name, err, path, want)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: waits", name)
			}
		}
	}
	f("a secret", func(path string) error { _, err := Secret{File: path}.read(); return err })
	f("ca", func(path string) error { _, err := HTTPTLS{CA: path}.config(); return err })
	f("cert", func(path string) error { _, err := HTTPTLS{Cert: path, Key: path}.config(); return err })
	f("kubeconfig", func(path string) error { _, err := readKubeconfig(path, ""); return err })
	f("save_to", func(path string) error { _, err := readSaved(path, "web"); return err })

	large := lbtest.Files(t, "large", make([]byte, 64<<10+1))
	if _, err := (Secret{File: large}).read(); err == nil || err.Error() != large+": more than 65536 bytes" {
		t.Error(err)
	}
}
