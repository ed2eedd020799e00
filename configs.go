package main

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"awe4lb/admin"
	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/discovery"
	"awe4lb/health"
	"awe4lb/internal/confstore"
	"awe4lb/internal/logs"
	"awe4lb/tlsbridge/certs"
)

// How the configuration that runs is found and changed: at the start, by a reload, and by the API (docs/decisions/0062).

// selected returns what is to run by what is on the disk now: main, or what was selected in its place.
func (p *process) selected() (admin.Change, error) {
	name, err := p.store.Selected()
	if err != nil {
		return admin.Change{}, err
	}
	path, err := p.store.Path(name)
	if err != nil {
		return admin.Change{}, err
	}
	text, err := config.Read(path)
	if err != nil {
		return admin.Change{}, err
	}
	return admin.Change{Name: name, Text: text, Stored: confstore.Tag(text)}, nil
}

// parse reads a configuration by its name. All but main have the [admin] of the one that runs: whoever selects one neither
// locks anybody out nor lets anybody in.
func (p *process) parse(c admin.Change, running *config.Config) (*config.Config, error) {
	path, err := p.store.Path(c.Name)
	if err != nil {
		return nil, err
	}
	cfg, err := config.ParseIn(filepath.Dir(p.path), path, c.Text) // paths mean the same in all of them
	if err != nil {
		return nil, err
	}
	if c.Name != confstore.Main {
		cfg.Admin = running.Admin
	}
	if c.Check != nil {
		return cfg, c.Check(cfg, running)
	}
	return cfg, nil
}

// Store implements admin.Configs, as do the methods below.
func (p *process) Store() *confstore.Store { return p.store }

// Running returns what runs, without waiting for a change at work.
func (p *process) Running() *admin.Running { return p.now.Load() }

// Preview returns what Run would do.
func (p *process) Preview(c admin.Change) (*admin.Preview, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cfg, err := p.parse(c, p.cfg)
	if err != nil {
		return nil, err
	}
	if errs := slices.Concat(logs.Check(cfg.Log), health.Check(cfg), discovery.Check(cfg)); len(errs) > 0 {
		return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: located(cfg, errors.Join(errs...))}
	}
	if p.admin != nil {
		if _, err := p.admin.Prepare(&cfg.Admin); err != nil {
			return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: located(cfg, err)}
		}
	}
	report, err := p.director.Preview(cfg)
	if err != nil {
		return nil, located(cfg, err)
	}
	return &admin.Preview{Report: report, Warnings: cfg.Warnings}, nil
}

// Run makes c what runs.
func (p *process) Run(c admin.Change) (*balancer.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch now := p.now.Load(); {
	case p.ending:
		return nil, errEnding
	case c.After != "" && c.After != confstore.Tag(now.Text):
		return nil, admin.ErrChanged
	}
	cfg, err := p.parse(c, p.cfg)
	if err != nil {
		return nil, err
	}
	report, err := p.enact(cfg)
	if err != nil {
		return nil, located(cfg, err)
	}
	p.now.Store(&admin.Running{Name: c.Name, Text: c.Text, Stored: c.Stored, Config: cfg})
	p.tell("configuration changed by the API", c.Name, report)
	if c.Keep != nil {
		if err := c.Keep(); err != nil {
			p.now.Store(&admin.Running{Name: c.Name, Text: c.Text, Config: cfg}) // a reload finds something else
			p.logs.Log.Error("the configuration that runs could not be stored", "config", c.Name, "error", err)
			return report, fmt.Errorf("it runs now, but could not be stored: %w", err)
		}
	}
	return report, nil
}

// located returns err with the places in cfg's file of all that it joins.
func located(cfg *config.Config, err error) error {
	switch e := err.(type) {
	case *admin.Refusal:
		return &admin.Refusal{Status: e.Status, Err: located(cfg, e.Err)}
	case certs.Errors:
		all := make(certs.Errors, len(e))
		for i := range e {
			all[i] = cfg.Locate(e[i])
		}
		return all
	case interface{ Unwrap() []error }:
		var all []error
		for _, err := range e.Unwrap() {
			all = append(all, cfg.Locate(err))
		}
		return errors.Join(all...)
	}
	return cfg.Locate(err)
}

// Stop leaves neither frontends nor pools.
func (p *process) Stop() (*balancer.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil, errEnding
	}
	empty := *p.cfg
	empty.Frontends, empty.Pools, empty.Warnings = nil, nil, nil
	report, err := p.enact(&empty)
	if err != nil {
		return nil, err
	}
	now := *p.now.Load()
	now.Stopped = true
	p.now.Store(&now)
	p.tell("stopped by the API: nothing is listened on", now.Name, report)
	return report, nil
}

// tell logs what a change did.
func (p *process) tell(what, name string, report *balancer.Report) {
	for _, c := range report.Changes {
		p.logs.Log.Info("configuration: " + c.String())
	}
	for _, name := range report.NeedRestart {
		p.logs.Log.Warn("configuration: takes effect at the next start", "setting", name)
	}
	p.logs.Log.Info(what, "config", name, "config_version", report.Version, "changes", len(report.Changes))
}

// first returns the configuration to start with, and notes it as what runs.
func (p *process) first(path string) (*config.Config, error) {
	text, err := config.Read(path)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(path, text)
	if err != nil {
		return nil, err
	}
	p.store = confstore.New(path, cfg.Admin.Configs)
	c := admin.Change{Name: confstore.Main, Text: text, Stored: confstore.Tag(text)}
	if name, err := p.store.Selected(); err != nil {
		return nil, err
	} else if name != confstore.Main {
		main := cfg
		if c, err = p.selected(); err != nil {
			return nil, fmt.Errorf("the configuration %s is selected by %s: %w", name, filepath.Join(p.store.Dir(), "active"), err)
		}
		if cfg, err = p.parse(c, main); err != nil {
			return nil, fmt.Errorf("the configuration %s is selected in place of %s: %w", name, path, err)
		}
	}
	p.now.Store(&admin.Running{Name: c.Name, Text: c.Text, Stored: c.Stored, Config: cfg})
	return cfg, nil
}
