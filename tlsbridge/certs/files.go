package certs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"awe4lb/internal/filestamp"
)

// maxFile is the largest file that is read: some thousands of certificates.
const maxFile = 4 << 20

func withPath(path string, err error) error { return fmt.Errorf("%s: %w", path, filestamp.Reason(err)) }

// stat returns the stamps of files, of what links point to at the end.
func stat(paths []string) []filestamp.Stamp {
	stamps := make([]filestamp.Stamp, len(paths))
	for i, path := range paths {
		stamps[i] = filestamp.Of(os.Stat(path))
	}
	return stamps
}

func allFinal(stamps []filestamp.Stamp, now time.Time) bool {
	return !slices.ContainsFunc(stamps, func(s filestamp.Stamp) bool { return !s.Final(now) })
}

// file is a file as it was read.
type file struct {
	path  string
	data  []byte
	stamp filestamp.Stamp
	err   error // why there is no data

	public bool // everybody on this host may read it
}

// readFile reads a file whole. The stamp belongs to the data, whatever happens to the path meanwhile.
func readFile(path string) (f file) {
	f.path = path
	f.err = f.read()
	return f
}

func (f *file) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return withPath(f.path, err)
	}
	f.stamp = filestamp.Of(info, nil)
	if !info.Mode().IsRegular() { // to open a pipe would wait for the other end
		return fmt.Errorf("%s: got %s; want a file", f.path, kindOf(info.Mode()))
	}
	r, err := os.Open(f.path)
	if err != nil {
		return withPath(f.path, err)
	}
	defer r.Close()
	if info, err = r.Stat(); err != nil {
		return err
	}
	f.stamp = filestamp.Of(info, nil)
	f.public = info.Mode()&0o004 != 0
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: got more than %d MiB; want less", f.path, maxFile>>20)
	}
	if info, err = r.Stat(); err != nil {
		return err
	}
	if filestamp.Of(info, nil) != f.stamp {
		return fmt.Errorf("%s: it was written while it was read; try again", f.path)
	}
	f.data = data
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// missing reports whether there is no such file.
func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// digest tells contents apart.
func digest(files []file) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, f := range files {
		s := sha256.Sum256(f.data)
		h.Write(s[:])
	}
	h.Sum(sum[:0])
	return sum
}
