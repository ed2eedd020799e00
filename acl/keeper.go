package acl

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"awe4lb/config"
	"awe4lb/internal/filestamp"
)

// interval is how often files are looked at.
const interval = 2 * time.Second

// Keeper keeps the lists of the configuration in force true to their files. It wakes only when there are files.
type Keeper struct {
	// Set once, never changed.
	log     *slog.Logger
	changed func()
	kick    chan struct{} // there is another Set
	quit    chan struct{}
	done    chan struct{}

	// Guarded by mu.
	mu         sync.Mutex
	set        *Set
	ok, failed uint64 // changes that were put to use, and that could not be
}

// Set is the lists of one configuration.
type Set struct {
	lists map[string]*List // by frontend
	files map[string]*file // by path
}

// NewKeeper starts a Keeper without lists. changed is called after a file's change was put to use, on the Keeper's goroutine
// or that of Look; it may not call the Keeper. Close ends it.
func NewKeeper(log *slog.Logger, changed func()) *Keeper {
	k := &Keeper{log: log, changed: changed, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), set: &Set{}}
	go k.watch()
	return k
}

// Close ends the watching and waits for it.
func (k *Keeper) Close() {
	close(k.quit)
	<-k.done
}

// List returns the list of a frontend, nil when everybody may come.
func (s *Set) List(frontend string) *List { return s.lists[frontend] }

// Prepare reads what cfg names and makes its lists. It changes nothing that is in use, and fails with config.Errors that tell
// every mistake of every file. Blocks for the disk.
func Prepare(cfg *config.Config) (*Set, error) {
	s := &Set{lists: map[string]*List{}, files: map[string]*file{}}
	var errs config.Errors
	for _, f := range cfg.Frontends {
		a := &f.Access
		if len(a.Rules) == 0 && a.Default != "deny" {
			continue
		}
		for _, r := range a.Rules {
			path, field := r.File()
			if path == "" || s.files[path] != nil {
				continue
			}
			made := &file{path: path, changed: time.Now()}
			s.files[path] = made
			var mistakes config.Errors
			var err error
			made.prefixes, made.used, err = read(path)
			switch {
			case errors.As(err, &mistakes):
				errs = append(errs, mistakes...)
			case err != nil:
				errs = append(errs, cfg.Mistake(field, err.Error()))
			}
		}
		if errs == nil {
			s.lists[f.Name] = newList(a, s.files)
			s.lists[f.Name].build()
		}
	}
	if errs != nil {
		return nil, errs
	}
	return s, nil
}

// Check returns what is wrong with the files that cfg names. Blocks for the disk.
func Check(cfg *config.Config) (errs []error) {
	_, err := Prepare(cfg)
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		for _, e := range mistakes {
			errs = append(errs, e)
		}
	}
	return errs
}

// Commit makes s the one whose files are watched.
func (k *Keeper) Commit(s *Set) {
	k.mu.Lock()
	k.set = s
	k.mu.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *Keeper) watch() {
	defer close(k.done)
	for {
		var look <-chan time.Time
		k.mu.Lock()
		if len(k.set.files) > 0 {
			look = time.After(interval)
		}
		k.mu.Unlock()
		select {
		case <-look:
			k.Look()
		case <-k.kick:
		case <-k.quit:
			return
		}
	}
}

// Look looks at the files now, as the Keeper does by itself every two seconds. Safe from any goroutine.
func (k *Keeper) Look() {
	if k.look() {
		k.changed()
	}
}

func (k *Keeper) look() (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.set.files {
		if k.lookAt(f) {
			changed = true
			for _, l := range k.set.lists {
				if slices.ContainsFunc(l.rules, func(r rule) bool { return r.file == f }) {
					l.build()
				}
			}
		}
	}
	return changed
}

// lookAt puts what f's file holds to use when it is new, settled and good. It reports whether there are other prefixes.
func (k *Keeper) lookAt(f *file) bool {
	now := time.Now()
	at := filestamp.Of(os.Stat(f.path))
	switch {
	case at == f.used:
		f.seen, f.failed, f.err = filestamp.Stamp{}, filestamp.Stamp{}, nil
		return false
	case at == f.failed, !at.Final(now):
		return false
	case at != f.seen:
		f.seen = at
		return false
	}
	list, used, err := read(f.path)
	if err != nil {
		f.failed, f.err = at, err
		k.failed++
		k.log.Warn("access list: the file cannot be used, the prefixes it had stay in use", "file", f.path, "error", firstLine(err))
		return false
	}
	f.seen, f.failed, f.err, f.used = filestamp.Stamp{}, filestamp.Stamp{}, nil, used
	if slices.Equal(list, f.prefixes) {
		return false
	}
	f.prefixes, f.changed = list, now
	k.ok++
	k.log.Info("access list: the file has changed and is in use", "file", f.path, "prefixes", len(list))
	return true
}

// firstLine returns the first mistake of many: the others show when it is put right, or by awe4lb check.
func firstLine(err error) string {
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		return mistakes[0].Error()
	}
	return err.Error()
}

// File is what is known of a file.
type File struct {
	Path     string
	Prefixes int       // in use
	Changed  time.Time // when they were read
	Err      string    // why what is there now is not in use; "": it is
}

// Files returns the files in use, by path. Safe from any goroutine; waits for a look that is under way.
func (k *Keeper) Files() (files []File, ok, failed uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.set.files {
		file := File{Path: f.path, Prefixes: len(f.prefixes), Changed: f.changed}
		if f.err != nil {
			file.Err = firstLine(f.err)
		}
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, k.ok, k.failed
}
