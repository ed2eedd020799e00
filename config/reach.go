package config

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Reach is what a configuration has the process do on its host beside listening and connecting.
type Reach struct {
	Programs []any  // pointers to the tables that have programs started
	Files    []File // and folders, none of them empty; logs to stdout and stderr are none
	Sockets  []Socket
	Uses     []Use
}

// File is a file or a folder that a field names.
type File struct {
	Field *string
	Key   string // the last part of that of the field, without an index
	To    string // where what is in it is sent; "" if it is not
}

// Socket is a unix socket to listen on or to connect to.
type Socket struct {
	Field any // pointer
	Path  string
}

// Use is a variable of the environment in a value.
type Use struct {
	Field any    // pointer
	Key   string // the last part of that of the field, without an index
	Name  string // of the variable
	To    string // the server that the table is about, which may be shown it; "" if there is none
}

// Reach returns what c reaches for; nothing if no file was read.
func (c *Config) Reach() Reach {
	if c.reach == nil {
		return Reach{}
	}
	return c.reach()
}

// reached returns Config.reach, with what outlives the decoder.
func (d *decoder) reached() func() Reach {
	var r Reach
	starts := map[string]bool{}
	for _, p := range d.places {
		if table, isCommand := strings.CutSuffix(p.path, ".command"); isCommand {
			starts[table] = true
		}
		if table, isPlugins := strings.CutSuffix(p.path, ".kubeconfig"); isPlugins { // which may name plugins
			starts[table] = true
		}
	}
	for field, p := range d.places {
		if starts[p.path] && reflect.TypeOf(field).Elem().Kind() == reflect.Struct {
			r.Programs = append(r.Programs, field)
		}
	}
	if len(d.cfg.Admin.Upgrade) > 0 {
		r.Programs = append(r.Programs, &d.cfg.Admin.Upgrade)
	}
	servers := d.servers()
	for _, field := range d.files {
		if s := *field; s != "" && s != "stdout" && s != "stderr" {
			f := File{Field: field}
			if p, ok := d.places[field]; ok { // else it is a default, or taken from a field that is told
				f.Key = lastKey(p.path)
				if f.Key == "token_file" || f.Key == "password_file" {
					f.To = servers[tableAround(p.path)]
				}
			}
			r.Files = append(r.Files, f)
		}
	}
	for field, p := range d.places {
		if path := socketIn(field); path != "" && !p.bad {
			r.Sockets = append(r.Sockets, Socket{field, path})
		}
	}
	for _, u := range d.uses {
		u.To = servers[tableAround(d.places[u.Field].path)]
		r.Uses = append(r.Uses, u)
	}
	return func() Reach { return r }
}

// socketIn returns the path of the unix socket that a field names, as unix:/path or unix:///path; "" if it names none.
func socketIn(field any) string {
	if a, ok := field.(*Address); ok {
		return a.Path
	}
	v := reflect.ValueOf(field).Elem()
	if v.Kind() != reflect.String { // a Secret is one
		return ""
	}
	if rest, ok := strings.CutPrefix(v.String(), "unix:"); ok {
		return filepath.Clean("/" + strings.TrimLeft(rest, "/"))
	}
	return ""
}

// servers returns the URLs that tables have, by the path of the table.
func (d *decoder) servers() map[string]string {
	all := map[string]string{}
	for field, p := range d.places {
		v := reflect.ValueOf(field).Elem()
		switch lastKey(p.path) {
		case "url", "directory":
			if v.Kind() == reflect.String { // also of a Secret, which would print as something else
				all[tableAround(p.path)] = v.String()
			}
		case "endpoints":
			if list, ok := v.Interface().([]string); ok {
				all[tableAround(p.path)] = strings.Join(list, " ")
			}
		}
	}
	return all
}

// tableAround returns the path of the table that a key is in.
func tableAround(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(withoutIndex(path), lastKey(path)), ".")
}

func withoutIndex(path string) string {
	if strings.HasSuffix(path, "]") {
		return path[:strings.LastIndexByte(path, '[')]
	}
	return path
}

// lastKey returns the last part of a key such as pools.web.backends[1].address, without an index.
func lastKey(path string) string {
	path = withoutIndex(path)
	return path[strings.LastIndexByte(path, '.')+1:]
}

// Beyond returns a mistake for each program that c would start and each file it names that the word of somebody who calls the
// API is not enough for: to change the configuration is not to be root of the host. It passes what the configurations trusted
// have too (a program with all that its table says), and files below the folder, which is absolute. A unix socket is a file: to
// forward to one may be to be root. A file stays with keys of the name under which a trusted configuration has it: a private key
// is no list whose lines are quoted, and no log that is written over. So does a variable of the environment, which may be what only
// its owner knows; and where a table has a server, what it may be shown is sent to the same alone. What sources may be asked at
// is not widened.
func (c *Config) Beyond(folder string, trusted ...*Config) Errors {
	var errs Errors
	var programs []any
	type file struct{ path, key, to string }
	files, mayExec := map[file]bool{}, false
	for _, t := range trusted {
		r := t.Reach()
		programs = append(programs, r.Programs...)
		for _, f := range r.Files {
			files[file{*f.Field, f.Key, f.To}] = true
		}
		mayExec = mayExec || t.Admin.AllowExec
	}
	r := c.Reach()
	for _, table := range r.Programs {
		if !slices.ContainsFunc(programs, func(t any) bool { return reflect.DeepEqual(t, table) }) {
			e := c.Mistake(table, "a configuration that comes by the API may not start programs")
			e.Hint = "admin.allow_exec = true in the file allows it"
			errs = append(errs, e)
		}
	}
	for _, f := range r.Files {
		if files[file{*f.Field, f.Key, f.To}] || isBelow(folder, *f.Field) || c.at == nil || c.at(f.Field) == nil { // or a default, or taken from a field that is told
			continue
		}
		e := c.Mistake(f.Field, "a configuration that comes by the API may name files in "+escape(folder)+" and those that are in use already, for the same purpose")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	errs = append(errs, c.beyondSockets(folder, trusted)...)
	errs = append(errs, c.beyondVariables(trusted)...)
	if len(trusted) > 0 && !slices.ContainsFunc(trusted, func(t *Config) bool { return narrower(c.Engine.DiscoveryAllow, t.Engine.DiscoveryAllow) }) {
		e := c.Mistake(&c.Engine.DiscoveryAllow, "the API cannot widen what sources of discovery may be asked at, only narrow it")
		if e.Key == "" { // it is left out, which is the widest
			e = &Error{Key: "engine.discovery_allow", Problem: e.Problem}
		}
		e.Hint = "change it in the file and reload"
		errs = append(errs, e)
	}
	if c.Admin.AllowExec && !mayExec {
		errs = append(errs, c.Mistake(&c.Admin.AllowExec, "the API cannot turn this on: write it into the file and reload"))
	}
	errs.sort()
	return slices.CompactFunc(errs, func(a, b *Error) bool { return a.Key == b.Key && a.Problem == b.Problem }) // structs that share a table
}

// narrower reports whether a list of prefixes allows nothing that another does not; one that is empty allows all.
func narrower(list, than []netip.Prefix) bool {
	return len(than) == 0 || len(list) > 0 && !slices.ContainsFunc(list, func(p netip.Prefix) bool {
		return !slices.ContainsFunc(than, func(t netip.Prefix) bool { return t.Bits() <= p.Bits() && t.Contains(p.Addr()) })
	})
}

func (c *Config) beyondSockets(folder string, trusted []*Config) (errs Errors) {
	known := map[string]bool{}
	for _, t := range trusted {
		for _, s := range t.Reach().Sockets {
			known[s.Path] = true
		}
	}
	for _, s := range c.Reach().Sockets {
		if known[s.Path] || isBelow(folder, s.Path) || c.at == nil || c.at(s.Field) == nil {
			continue
		}
		e := c.Mistake(s.Field, "a configuration that comes by the API may name unix sockets in "+escape(folder)+" and those that are in use already")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	return errs
}

func (c *Config) beyondVariables(trusted []*Config) (errs Errors) {
	type use struct{ key, name, to string }
	known := map[use]bool{}
	for _, t := range trusted {
		for _, u := range t.Reach().Uses {
			known[use{u.Key, u.Name, u.To}] = true
		}
	}
	for _, u := range c.Reach().Uses {
		if known[use{u.Key, u.Name, u.To}] || c.at == nil || c.at(u.Field) == nil {
			continue
		}
		e := c.Mistake(u.Field, "a configuration that comes by the API may use variables of the environment only in keys that use them already, beside the same server")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	return errs
}

// isBelow reports whether a path, absolute like the folder, is below it.
func isBelow(folder, path string) bool {
	return strings.HasPrefix(filepath.Clean(path), filepath.Clean(folder)+string(filepath.Separator))
}
