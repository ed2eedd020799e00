package acl

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"awe4lb/config"
	"awe4lb/internal/filestamp"
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
	used, seen, failed filestamp.Stamp
	changed            time.Time // when what is in use was read
	err                error     // why what is there now is not in use; nil: it is
}

// read reads the file. The stamp belongs to what was read, whatever happens to the path meanwhile. It fails with
// config.Errors when the file can be read and has mistakes. Blocks for the disk.
func read(path string) (_ []netip.Prefix, _ filestamp.Stamp, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: %w", path, filestamp.Reason(err))
	}
	if !info.Mode().IsRegular() { // to open a pipe would wait for the other end
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: not a file", path)
	}
	r, err := os.Open(path)
	if err != nil {
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: %w", path, filestamp.Reason(err))
	}
	defer r.Close()
	before, err := r.Stat()
	if err != nil {
		return nil, filestamp.Stamp{}, err
	}
	now := time.Now()
	data, err := io.ReadAll(io.LimitReader(r, config.MaxPrefixFile+1))
	if err != nil {
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: %w", path, filestamp.Reason(err))
	}
	if len(data) > config.MaxPrefixFile {
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: got more than %d MiB; want less", path, config.MaxPrefixFile>>20)
	}
	after, err := r.Stat()
	if err != nil {
		return nil, filestamp.Stamp{}, err
	}
	s := filestamp.Of(before, nil)
	if filestamp.Of(after, nil) != s {
		return nil, filestamp.Stamp{}, fmt.Errorf("%s: it was written while it was read; try again", path)
	}
	list, err := config.ParsePrefixes(path, string(data))
	if err != nil {
		return nil, filestamp.Stamp{}, err
	}
	if !s.Final(now) {
		s = filestamp.Stamp{} // the next look reads it again
	}
	return list, s, nil
}
