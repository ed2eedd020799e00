package soak

import (
	"bytes"
	"os"
	"path/filepath"

	"awe4lb/bench/report"
)

// Write puts page and pictures into dir and returns the page's path. Nothing is overwritten.
func (r *Report) Write(dir string) (string, error) {
	name := "soak-" + r.Date.Format("2006-01-02") + "-" + r.Commit
	if r.Dirty {
		name += "-dirty"
	}
	name, err := report.ClaimName(dir, name)
	if err != nil {
		return "", err
	}
	for _, f := range r.Figures() {
		if err := os.WriteFile(filepath.Join(dir, name, f.Name), []byte(f.SVG), 0o644); err != nil {
			return "", err
		}
	}
	var text bytes.Buffer
	if err := r.Markdown(&text, name); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".md")
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}
