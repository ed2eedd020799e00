package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Reach is what a configuration has the process do on its host beside listening and connecting.
type Reach struct {
	Programs []any     // pointers to the tables that have programs started
	Files    []*string // the fields that name files and folders, none of them empty; logs to stdout and stderr are none
	Sockets  []Socket
	Uses     []Use
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
	for _, field := range d.files {
		if s := *field; s != "" && s != "stdout" && s != "stderr" {
			r.Files = append(r.Files, field)
		}
	}
	for field, p := range d.places {
		if path := socketIn(field); path != "" && !p.bad {
			r.Sockets = append(r.Sockets, Socket{field, path})
		}
	}
	r.Uses = d.uses
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

// lastKey returns the last part of a key such as pools.web.backends[1].address, without an index.
func lastKey(path string) string {
	if strings.HasSuffix(path, "]") {
		path = path[:strings.LastIndexByte(path, '[')]
	}
	return path[strings.LastIndexByte(path, '.')+1:]
}

// Beyond returns a mistake for each program that c would start and each file it names that the word of somebody who calls the
// API is not enough for: to change the configuration is not to be root of the host. It passes what the configurations trusted
// have too (a program with all that its table says), and files below the folder, which is absolute. A unix socket is a file: to
// forward to one may be to be root. A variable of the environment may be what only its owner knows: it stays with keys of the
// name under which a trusted configuration has it.
func (c *Config) Beyond(folder string, trusted ...*Config) Errors {
	var errs Errors
	var programs []any
	files, mayExec := map[string]bool{}, false
	for _, t := range trusted {
		r := t.Reach()
		programs = append(programs, r.Programs...)
		for _, field := range r.Files {
			files[*field] = true
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
	for _, field := range r.Files {
		if files[*field] || isBelow(folder, *field) || c.at == nil || c.at(field) == nil { // or a default, or taken from a field that is told
			continue
		}
		e := c.Mistake(field, "a configuration that comes by the API may name files in "+escape(folder)+" and those that are in use already")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	errs = append(errs, c.beyondSockets(folder, trusted)...)
	errs = append(errs, c.beyondVariables(trusted)...)
	if c.Admin.AllowExec && !mayExec {
		errs = append(errs, c.Mistake(&c.Admin.AllowExec, "the API cannot turn this on: write it into the file and reload"))
	}
	errs.sort()
	return slices.CompactFunc(errs, func(a, b *Error) bool { return a.Key == b.Key && a.Problem == b.Problem }) // structs that share a table
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
	type use struct{ key, name string }
	known := map[use]bool{}
	for _, t := range trusted {
		for _, u := range t.Reach().Uses {
			known[use{u.Key, u.Name}] = true
		}
	}
	for _, u := range c.Reach().Uses {
		if known[use{u.Key, u.Name}] || c.at == nil || c.at(u.Field) == nil {
			continue
		}
		e := c.Mistake(u.Field, "a configuration that comes by the API may use variables of the environment only in keys that use them already")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	return errs
}

// isBelow reports whether a path, absolute like the folder, is below it.
func isBelow(folder, path string) bool {
	return strings.HasPrefix(filepath.Clean(path), filepath.Clean(folder)+string(filepath.Separator))
}
