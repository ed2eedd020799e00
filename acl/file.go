package acl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"syscall"
	"time"

	"awe4lb/config"
)

// file is a file of prefixes. What is in use stays until something better is there:
//
//	            changed             settled, good
//	in use ───────────────▶ seen ──────────────────▶ in use
//	   ▲                     │  ▲
//	   │ the old file        │  │ changed
//	   │ is back             ▼  │
//	   └────────────────── failed: told once, the old prefixes stay in use
//
// Settled means that two looks have found the same, so that nobody reads what is half written.
type file struct {
	path string // set once

	// Guarded by Keeper.mu.
	prefixes           []netip.Prefix
	used, seen, failed stamp
	changed            time.Time // when what is in use was read
	err                error     // why what is there now is not in use; nil: it is
}

// stamp is what tells one state of a file from another without reading it (decision 0024). Comparable; the zero stamp is of
// no file.
type stamp struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64 // Unix nanoseconds; ctime changes with each write and each change of permissions
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

// granule is more than the kernel's clock for time stamps may be behind: a file that changed less than this ago may change
// again and keep its stamp.
const granule = 50 * time.Millisecond

// final reports whether a write after now shows in the stamp.
func (s stamp) final(now time.Time) bool {
	age := now.UnixNano() - max(s.mtime, s.ctime)
	return age < 0 || age >= int64(granule)
}

// read reads the file. The stamp belongs to what was read, whatever happens to the path meanwhile. It fails with
// config.Errors when the file can be read and has mistakes. Blocks for the disk.
func read(path string) (_ []netip.Prefix, _ stamp, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("%s: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() { // to open a pipe would wait for the other end
		return nil, stamp{}, fmt.Errorf("%s: not a file", path)
	}
	r, err := os.Open(path)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("%s: %w", path, reason(err))
	}
	defer r.Close()
	before, err := r.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	now := time.Now()
	data, err := io.ReadAll(io.LimitReader(r, config.MaxPrefixFile+1))
	if err != nil {
		return nil, stamp{}, fmt.Errorf("%s: %w", path, reason(err))
	}
	if len(data) > config.MaxPrefixFile {
		return nil, stamp{}, fmt.Errorf("%s: got more than %d MiB; want less", path, config.MaxPrefixFile>>20)
	}
	after, err := r.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	s := stampOf(before, nil)
	if stampOf(after, nil) != s {
		return nil, stamp{}, fmt.Errorf("%s: it was written while it was read; try again", path)
	}
	list, err := config.ParsePrefixes(path, string(data))
	if err != nil {
		return nil, stamp{}, err
	}
	if !s.final(now) {
		s = stamp{} // the next look reads it again
	}
	return list, s, nil
}
