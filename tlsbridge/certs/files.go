package certs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// maxFile is the largest file that is read: some thousands of certificates.
const maxFile = 4 << 20

// stamp is what tells one state of a file from another without reading it. Comparable.
type stamp struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64 // Unix nanoseconds; ctime changes with each write, whatever mtime is set to, and with permissions
	err          string
}

func stampOf(info fs.FileInfo, err error) stamp {
	if err != nil {
		return stamp{err: reason(err).Error()}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	}
	return stamp{dev: uint64(st.Dev), inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// reason returns an error of a file operation without the operation and the path.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func withPath(path string, err error) error { return fmt.Errorf("%s: %w", path, reason(err)) }

// granule is more than the kernel's clock for time stamps may be behind: a file that changed less than this ago may change
// again and keep its stamp.
const granule = 50 * time.Millisecond

// final reports whether a write after now shows in the stamp.
func (s stamp) final(now time.Time) bool {
	age := now.UnixNano() - max(s.mtime, s.ctime)
	return age < 0 || age >= int64(granule)
}

// stat returns the stamps of files, of what links point to at the end.
func stat(paths []string) []stamp {
	stamps := make([]stamp, len(paths))
	for i, path := range paths {
		stamps[i] = stampOf(os.Stat(path))
	}
	return stamps
}

func allFinal(stamps []stamp, now time.Time) bool {
	return !slices.ContainsFunc(stamps, func(s stamp) bool { return !s.final(now) })
}

// file is a file as it was read.
type file struct {
	path  string
	data  []byte
	stamp stamp
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
	f.stamp = stampOf(info, nil)
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
	f.stamp = stampOf(info, nil)
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
	if stampOf(info, nil) != f.stamp {
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
