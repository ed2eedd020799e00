package admin

import (
	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/confstore"
)

// Configs is what runs, and how it is changed. All of it is safe from any goroutine.
type Configs interface {
	Store() *confstore.Store

	// Running returns the configuration that runs. Treat it as immutable.
	Running() *Running

	// Preview returns what Run would do with c, and changes nothing.
	Preview(c Change) (*Preview, error)

	// Run makes c the configuration that runs, all or nothing.
	Run(c Change) (*balancer.Report, error)

	// Stop leaves no frontend and no pool, until the next Run, reload or start.
	Stop() (*balancer.Report, error)
}

// Running is the configuration that runs.
type Running struct {
	Name    string // in the store
	Text    []byte // TOML
	Stored  string // tag of the text as it was read from its file; that of Text unless a change is in memory only
	Stopped bool   // nothing of it runs

	Config *config.Config
}

// Unsaved reports whether something runs that no file has.
func (r *Running) Unsaved() bool { return confstore.Tag(r.Text) != r.Stored }

// Change is a configuration that is to run.
type Change struct {
	Name   string // in the store
	Text   []byte // TOML
	Stored string // tag of the text of the file, as in Running

	// Unless "", the tag of the text that must run when the change comes into force: ErrChanged otherwise.
	After string

	// Check may object to the configuration before anything is done; running is the one that runs.
	Check func(next, running *config.Config) error

	// Keep, if set, makes the change last, once it is certain to come into force. Its error is returned when the change has
	// been made nevertheless.
	Keep func() error
}

// Preview is what a Change would do.
type Preview struct {
	Report   *balancer.Report
	Warnings []string
}

// ErrChanged is the error of a Change that comes after another one it does not know of.
var ErrChanged = problemf(412, "the configuration has been changed meanwhile")
