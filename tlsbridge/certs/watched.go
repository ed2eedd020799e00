package certs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"awe4lb/internal/filestamp"
	"awe4lb/tlsbridge"
)

// watched is something made of one file or more, which are checked together before any of them is used. What is in use
// stays until something better is there:
//
//	            changed             settled, good
//	in use ───────────────▶ seen ──────────────────▶ in use
//	   ▲                     │  ▲
//	   │ the old files       │  │ changed
//	   │ are back            ▼  │
//	   └────────────────── failed: told once, the old stays in use
//
// Settled means that two looks have found the same: who writes a key and then its certificate has a period's time.
type watched struct {
	// Set once, never changed.
	what  string // for the log: certificate, client_ca, …
	owner string // the table it is for, such as frontends.web.tls
	keys  []string
	paths []string // of keys

	// parse checks contents, by key, and returns what install puts to use. It fails with *tlsbridge.OptionErrors, joined.
	parse   func(contents map[string]file) (any, error)
	install func(value any)

	// Guarded by Keeper.mu.
	used, seen, failed []filestamp.Stamp // failed is nil when nothing has
	digest             [sha256.Size]byte
	value              any
	err                error     // why what is there now is not in use; nil: it is
	changed            time.Time // when it was put to use
}

// add makes a file part of w, unless path is empty.
func (w *watched) add(key, path string) {
	if path != "" {
		w.keys, w.paths = append(w.keys, key), append(w.paths, path)
	}
}

// reading is the files of something watched as they were read once.
type reading struct {
	files  []file
	digest [sha256.Size]byte
	value  any
}

func (r *reading) stamps() []filestamp.Stamp {
	stamps := make([]filestamp.Stamp, len(r.files))
	for i, f := range r.files {
		stamps[i] = f.stamp
	}
	return stamps
}

// read reads and checks the files of w and changes nothing.
func (w *watched) read() (*reading, error) {
	r := new(reading)
	contents := map[string]file{}
	var errs []error
	for i, path := range w.paths {
		f := readFile(path)
		if f.err != nil {
			errs = append(errs, optionError(w.keys[i], f.err))
			continue
		}
		r.files = append(r.files, f)
		contents[w.keys[i]] = f
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	r.digest = digest(r.files)
	var err error
	if r.value, err = w.parse(contents); err != nil {
		return nil, err
	}
	return r, nil
}

func optionError(key string, err error) error {
	return &tlsbridge.OptionError{Key: key, Index: -1, Text: err.Error()}
}

// put puts a reading to use.
func (w *watched) put(r *reading, now time.Time) {
	w.used, w.failed, w.err = r.stamps(), nil, nil
	w.seen = w.used
	if !allFinal(w.used, now) {
		w.used = nil // the files may change without a trace: look again
	}
	if w.value != nil && w.digest == r.digest {
		return // nothing new: who holds the value may go on holding it
	}
	w.digest, w.value, w.changed = r.digest, r.value, now
	w.install(r.value)
}

// lookAt looks at the files of w and uses what is new.
func (k *Keeper) lookAt(w *watched, now time.Time) {
	stamps := stat(w.paths)
	switch {
	case slices.Equal(stamps, w.used):
		if w.err != nil {
			w.failed, w.err, k.dirty = nil, nil, true
			k.log.Info(w.what+": the files in use are back", w.attrs()...)
		}
		w.seen = stamps
		return
	case slices.Equal(stamps, w.failed):
		return
	case !slices.Equal(stamps, w.seen) || !allFinal(stamps, now):
		w.seen = stamps
		return
	}
	r, err := w.read()
	if err == nil && !slices.Equal(r.stamps(), stamps) {
		w.seen = nil // it has just changed again
		return
	}
	k.dirty = true
	if err != nil {
		w.failed, w.err = stamps, flat(err)
		k.counters.reloadsFailed.Add(1)
		k.log.Error(w.what+" has changed and cannot be used: the old one stays in use", append(w.attrs(), "error", w.err)...)
		return
	}
	same := r.digest == w.digest
	wrong := w.err != nil
	w.put(r, now)
	w.used = stamps
	switch {
	case !same:
		k.counters.reloadsOK.Add(1)
		k.log.Info(w.what+" has changed: new handshakes use it", append(w.attrs(), describe(r.value)...)...)
	case wrong:
		k.log.Info(w.what+": the files in use are back", w.attrs()...)
	}
}

func (w *watched) attrs() []any { return []any{"for", w.owner, "file", w.paths[0]} }

// describe returns what to log of a new value.
func describe(value any) []any {
	c, _ := value.(*tlsbridge.Certificate)
	if p, ok := value.(*poolValue); ok {
		c = p.own
	}
	if c == nil {
		return nil
	}
	return []any{"names", names(c), "not_after", c.NotAfter, "fingerprint", c.Fingerprint()}
}

// flat makes joined errors one line.
func flat(err error) error {
	all := each(err)
	text := all[0].Error()
	for _, e := range all[1:] {
		text += "; " + e.Error()
	}
	return errors.New(text)
}

// each returns what errors.Join has joined.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}

// names returns the names and addresses of a certificate.
func names(c *tlsbridge.Certificate) []string {
	all := slices.Clone(c.Names)
	for _, ip := range c.Leaf().IPAddresses {
		all = append(all, fmt.Sprint(ip))
	}
	return all
}
