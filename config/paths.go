package config

import (
	"path/filepath"
	"strings"
)

// Paths of files in the tables about TLS. Whether a file is there and what is in it is for those to say who read it.

// localFile makes the path in field absolute: it counts from the folder of the configuration file, so that it means the
// same wherever awe4lb is started. "" is no file and stays.
func (d *decoder) localFile(field *string) {
	if p := d.places[field]; strings.HasSuffix(*field, "/") && !p.bad {
		d.refuse(p, complaint{want: "the path of a file"})
		return
	}
	d.localPath(field, "the path of a file")
}

// localFolder is localFile for a folder.
func (d *decoder) localFolder(field *string) { d.localPath(field, "the path of a folder") }

func (d *decoder) localPath(field *string, want string) {
	p := d.places[field]
	s := *field
	d.files = append(d.files, field)
	switch {
	case p.bad || s == "":
	case s == "~" || strings.HasPrefix(s, "~/"):
		d.refuse(p, complaint{want: want, hint: `"~" is not replaced; write ${HOME}`})
	case len(s) >= 4096:
		d.refuse(p, complaint{want: want})
	case !filepath.IsAbs(s):
		*field = filepath.Join(d.dir(), s)
	}
}

// dir returns the folder that paths count from.
func (d *decoder) dir() string {
	if abs, err := filepath.Abs(d.folder); err == nil { // else the working directory is gone, and so is what the path counted from
		return abs
	}
	return d.folder
}
