package confstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Staged is a configuration that is written but not yet in its place: what can fail has been done. Commit or
// Discard must follow, soon, since nobody else can write until then; what comes after the first of them does nothing.
type Staged struct {
	s          *Store
	name, who  string
	text, last []byte // last is what is there now; nil: nothing is
	write      *write
	done       bool
}

// Stage writes text as a configuration, by whom. match, called with the tag of what is there ("" when nothing is), may object.
func (s *Store) Stage(name string, text []byte, who string, match func(tag string) error) (_ *Staged, err error) {
	path, err := s.Path(name)
	if err != nil {
		return nil, err
	}
	if len(text) > MaxSize {
		return nil, ErrTooLarge
	}
	s.writing.Lock()
	defer func() {
		if err != nil {
			s.writing.Unlock()
		}
	}()
	st, tag := &Staged{s: s, name: name, who: who, text: text}, ""
	switch old, err := s.Read(name); {
	case err == nil:
		st.last, tag = old.Text, Tag(old.Text)
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	if err := match(tag); err != nil {
		return nil, err
	}
	if name == Main {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: %w", name, ErrNotFile) // a link would become a file, and what it points to stay as it is
		}
	} else if err := s.makeRoom(tag == ""); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.historyOf(name), 0o700); err != nil {
		return nil, reason(err)
	}
	st.write, err = newWrite(path, text)
	return st, err
}

// makeRoom makes the folder, and refuses a new configuration when there are too many.
func (s *Store) makeRoom(isNew bool) error {
	if err := os.MkdirAll(s.Dir(), 0o700); err != nil {
		return reason(err)
	}
	names, err := s.names()
	if err == nil && isNew && len(names) >= MaxConfigs {
		err = ErrTooMany
	}
	return err
}

// Commit puts the configuration in its place and remembers it as a version, after what was there before.
func (st *Staged) Commit() error {
	if st.done {
		return nil
	}
	st.done = true
	defer st.s.writing.Unlock()
	if st.last != nil {
		if err := st.s.remember(st.name, st.last, ""); err != nil {
			st.write.discard()
			return err
		}
	}
	if err := st.write.commit(); err != nil {
		return err
	}
	return st.s.remember(st.name, st.text, st.who)
}

// Discard leaves everything as it is.
func (st *Staged) Discard() {
	if st.done {
		return
	}
	st.done = true
	st.write.discard()
	st.s.writing.Unlock()
}

// write is a file on its way to a path.
type write struct{ path, temporary string }

// newWrite writes text beside path, on the disk, with the mode and the owner of what is there; else for its owner alone.
func newWrite(path string, text []byte) (_ *write, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".awe4lb-") // mode 0600
	if err != nil {
		return nil, reason(err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
			err = reason(err)
		}
	}()
	if _, err = f.Write(text); err != nil {
		return nil, err
	}
	if info, e := os.Lstat(path); e == nil && info.Mode().IsRegular() {
		if err = keepOwner(f, info); err != nil {
			return nil, err
		}
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	return &write{path, f.Name()}, nil
}

// keepOwner gives f the owner and the mode that info has.
func keepOwner(f *os.File, info fs.FileInfo) error {
	want, ok := info.Sys().(*syscall.Stat_t)
	now, err := f.Stat()
	if err != nil || !ok {
		return err
	}
	is := now.Sys().(*syscall.Stat_t)
	if is.Uid != want.Uid || is.Gid != want.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm())
}

func (w *write) commit() error {
	if err := os.Rename(w.temporary, w.path); err != nil {
		w.discard()
		var link *os.LinkError
		if errors.As(err, &link) {
			err = fmt.Errorf("rename: %w", link.Err)
		}
		return err
	}
	if dir, err := os.Open(filepath.Dir(w.path)); err == nil { // the name is on the disk too
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

func (w *write) discard() { _ = os.Remove(w.temporary) }
