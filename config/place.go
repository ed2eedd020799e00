package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Placed is an error that shows only when a configuration is put to use, with its place in the file. It prints as an Error does:
//
//	awe4lb.toml:12: frontends.web.bind[0]: 127.0.0.1:80: bind: address already in use
type Placed struct {
	File string
	Line int
	Key  string
	Err  error // begins with the key and a colon

	whole bool // Err says file and line as well
}

func (e *Placed) Error() string {
	if e.whole {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %v", escape(e.File), e.Line, e.Err)
}

// Unwrap is for errors.Is and errors.As.
func (e *Placed) Unwrap() error { return e.Err }

// Locate returns err, which begins with a key and a colon, as a *Placed, with the file and the line of that key before it; so too
// where they are there already, as At writes them. Where the file does not have the key, err is returned as it is. Safe from any
// goroutine.
func (c *Config) Locate(err error) error {
	if c.place == nil {
		return err
	}
	text, file := err.Error(), c.place("").File
	if rest, ok := strings.CutPrefix(text, escape(file)+":"); ok {
		number, rest, _ := strings.Cut(rest, ": ")
		key, _, isKey := strings.Cut(rest, ": ")
		if line, bad := strconv.Atoi(number); bad == nil && isKey {
			return &Placed{File: file, Line: line, Key: key, Err: err, whole: true}
		}
		return err
	}
	if key, _, _ := strings.Cut(text, ": "); key != "" {
		if e := c.place(key); e != nil {
			return &Placed{File: e.File, Line: e.Line, Key: key, Err: err}
		}
	}
	return err
}

// BindKey returns the key of the entry of bind that a is of: frontends.web.bind[0].
func (f *Frontend) BindKey(a Address) string {
	key := "frontends." + f.Name + ".bind"
	for i, entry := range f.Bind {
		if b, wrong := parseBind(entry); wrong == nil && b.holds(a) {
			return fmt.Sprintf("%s[%d]", key, i)
		}
	}
	return key // it did not come from a file
}

// holds reports whether a is one of the addresses that b stands for.
func (b binding) holds(a Address) bool {
	if b.path != "" || a.Path != "" {
		return b.path == a.Path
	}
	return b.first <= a.IP.Port() && a.IP.Port() <= b.last && slices.Contains(b.hosts, a.IP.Addr())
}
