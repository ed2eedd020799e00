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
	return func() Reach { return r }
}

// Beyond returns a mistake for each program that c would start and each file it names that the word of somebody who calls the
// API is not enough for: to change the configuration is not to be root of the host. It passes what the configurations trusted
// have too (a program with all that its table says), and files below the folder, which is absolute.
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
		inside := strings.HasPrefix(filepath.Clean(*field), filepath.Clean(folder)+string(filepath.Separator))
		if files[*field] || inside || c.at == nil || c.at(field) == nil { // or a default, or taken from a field that is told
			continue
		}
		e := c.Mistake(field, "a configuration that comes by the API may name files in "+escape(folder)+" and those that are in use already")
		e.Hint = "admin.allow_exec = true in the file allows it"
		errs = append(errs, e)
	}
	if c.Admin.AllowExec && !mayExec {
		errs = append(errs, c.Mistake(&c.Admin.AllowExec, "the API cannot turn this on: write it into the file and reload"))
	}
	errs.sort()
	return slices.CompactFunc(errs, func(a, b *Error) bool { return a.Key == b.Key && a.Problem == b.Problem }) // structs that share a table
}
