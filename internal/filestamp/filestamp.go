// Package filestamp tells one state of a file from another without reading it (decision 0024), for those who look at files
// every now and then.
package filestamp

import (
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// Stamp is the state of a file, or of a path where there is none. Comparable; the zero Stamp is of no file.
type Stamp struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64 // Unix nanoseconds; ctime changes with each write, whatever mtime is set to, and with permissions
	err          string
}

// Of returns the stamp of what Stat, on a path or an open file, has returned.
func Of(info fs.FileInfo, err error) Stamp {
	if err != nil {
		return Stamp{err: Reason(err).Error()}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	}
	return Stamp{dev: uint64(st.Dev), inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// Reason returns an error of a file operation without the operation and the path.
func Reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// granule is more than the kernel's clock for time stamps may be behind: a file that changed less than this ago may change
// again and keep its stamp.
const granule = 50 * time.Millisecond

// Final reports whether a write after now shows in the stamp.
func (s Stamp) Final(now time.Time) bool {
	age := now.UnixNano() - max(s.mtime, s.ctime)
	return age < 0 || age >= int64(granule)
}
