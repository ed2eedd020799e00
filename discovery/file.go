package discovery

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// FileOptions say where a list is and how it is written.
type FileOptions struct {
	Path     string // absolute
	Decoding        // Auto: .json and .toml by the ending, anything else is Text
	MaxBytes int64  // a larger file is an error; 0 = 4 MiB
}

// file reads a list from disk. Each Fetch looks at it, as decision 0024 has it for certificates: device, inode, size, mtime
// and ctime of what the path leads to. A file that has changed is read once two looks have found the same, so that one
// that is being written is left alone; renaming a whole file into place is better still.
type file struct {
	// Set once.
	path string
	dec  *decoder
	auto Format
	most int64

	// Owned by the goroutine that calls Fetch.
	seen stamp // by the last look
	used stamp // of list; zero = none, or it may have changed within the same stamp
	list List
	err  error
}

type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Time
}

// NewFile returns a source that reads a file. Ask it every second or two: a look is one stat.
func NewFile(o FileOptions) (Source, error) {
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("file: path: got %q; want an absolute path", o.Path)
	}
	dec, err := newDecoder(o.Decoding)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	most, err := maxBytes(o.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	f := &file{path: o.Path, dec: dec, auto: Text, most: most}
	switch strings.ToLower(filepath.Ext(o.Path)) {
	case ".json":
		f.auto = JSON
	case ".toml":
		f.auto = TOML
	}
	return f, nil
}

func (f *file) String() string { return "file:" + f.path }

// Fetch blocks as long as the file system does; on a dead network file system that is longer than ctx allows.
func (f *file) Fetch(context.Context) (List, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen, f.used = stamp{}, stamp{}
		return List{}, err
	}
	now := stampOf(info)
	before := f.seen
	f.seen = now
	first := before == stamp{}
	if now == f.used || !first && now != before && f.used != (stamp{}) {
		return f.list, f.err
	}
	f.list, f.used, f.err = f.read(now)
	return f.list, f.err
}

// read returns the list and the stamp it belongs to. The error of a file that does not decode is kept with its stamp.
func (f *file) read(now stamp) (List, stamp, error) {
	h, _, err := openFile(f.path)
	if err != nil {
		return List{}, stamp{}, err
	}
	defer h.Close()
	b, err := readLimited(h, f.most)
	if err != nil {
		return List{}, stamp{}, fmt.Errorf("%s: %w", f.path, err)
	}
	list, err := f.dec.decode(b, f.auto)
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
	}
	// Two writes within a step of the kernel's clock look the same; so read what is so young again.
	if after, e := h.Stat(); e != nil || stampOf(after) != now || time.Since(now.ctime) < 50*time.Millisecond {
		now = stamp{}
	}
	return list, now, err
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = uint64(st.Dev), st.Ino
		s.ctime = time.Unix(st.Ctim.Unix())
	}
	return s
}
