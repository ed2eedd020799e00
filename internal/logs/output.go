// Package logs is where awe4lb's own log and its access log go: files that can be reopened for rotation, a logger that a
// reload can change, and the form of an access log line. Nothing here is called from a shard.
package logs

import (
	"io"
	"os"
	"sync"
)

// Output is a place to write lines to: standard output, standard error, or a file that Reopen opens anew. Its methods are
// safe from any goroutine.
type Output struct {
	// Set once, never changed.
	path string // "" for the standard streams

	// Guarded by mu.
	mu   sync.Mutex
	file *os.File
}

// Open returns the output of that name: "stdout", "stderr" or the path of a file, which is appended to and made with mode
// 0640 when it is not there.
func Open(name string) (*Output, error) {
	switch name {
	case "stdout":
		return &Output{file: os.Stdout}, nil
	case "stderr":
		return &Output{file: os.Stderr}, nil
	}
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	return &Output{path: name, file: f}, nil
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}

// Write writes b. A failure is the caller's to ignore: there is nowhere left to report it to.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file.Write(b)
}

// Reopen opens a file anew under its name, for whoever moved the old one away. When that fails the old one is kept.
func (o *Output) Reopen() error {
	if o.path == "" {
		return nil
	}
	f, err := openFile(o.path)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.file.Close()
	o.file = f
	return nil
}

// Close closes a file; the standard streams stay open.
func (o *Output) Close() {
	if o.path == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.file.Close()
}

var _ io.Writer = (*Output)(nil)
