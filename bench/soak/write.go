package soak

import (
	"bytes"
	"io"
	"os"
	"path/filepath"

	"awe4lb/bench/report"
)

// Write puts page and pictures into dir and returns the page's path. Nothing is overwritten.
func (r *Report) Write(dir string) (string, error) {
	return write(dir, "soak-", r, r)
}

// page is what a soak has to show.
type page interface {
	Markdown(w io.Writer, figures string) error
	Figures() []Figure
}

func write(dir, prefix string, r *Report, p page) (string, error) {
	name := prefix + r.Date.Format("2006-01-02") + "-" + r.Commit
	if r.Dirty {
		name += "-dirty"
	}
	name, err := report.ClaimName(dir, name)
	if err != nil {
		return "", err
	}
	for _, f := range p.Figures() {
		if err := os.WriteFile(filepath.Join(dir, name, f.Name), []byte(f.SVG), 0o644); err != nil {
			return "", err
		}
	}
	var text bytes.Buffer
	if err := p.Markdown(&text, name); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".md")
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}
