// Package socketfile looks after the files of unix sockets. A process that was killed leaves its file behind, and bind(2)
// fails until it is removed; but whatever else stands at the path is somebody's, and is left alone.
package socketfile

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// InTheWay returns an error when something that is no socket stands at path. It changes nothing.
func InTheWay(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s in the way at %s: only a socket is replaced; move it, or choose another path", kind(info.Mode()), path)
	}
	return nil
}

// MakeWay makes path free for a listener: a socket nobody listens on is removed. The error is syscall.EADDRINUSE when
// somebody listens there, else says what is in the way. What MakeWay is not sure of it leaves for bind(2) to refuse.
// Blocks for a second at the most.
func MakeWay(path string) error {
	if err := InTheWay(path); err != nil {
		return err
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return syscall.EADDRINUSE
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil // nothing is there, or who knows what
}

// Remove removes the socket at path, if there is one.
func Remove(path string) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(path)
	}
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "a regular file is"
	case m.IsDir():
		return "a directory is"
	case m.Type() == fs.ModeSymlink:
		return "a symbolic link is"
	}
	return "something that is no socket is"
}
