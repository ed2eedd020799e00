package config

// Document is TOML of any shape, such as the configuration of another program, with the place of everything in it.
type Document struct {
	// Values are what the text holds: tables as map[string]any, arrays as []any or, of tables, []map[string]any, and
	// string, bool, int64, float64 or time.Time.
	Values map[string]any

	root *node
}

// ParseDocument reads text as TOML, within the limits that hold for awe4lb.toml, and asks nothing else of it. The error is
// an Errors; name stands for the file in it.
func ParseDocument(name string, text []byte) (*Document, error) {
	tree, values, errs := read(text)
	if errs != nil {
		for _, e := range errs {
			e.File = name
		}
		return nil, errs
	}
	return &Document{values, tree}, nil
}

// At returns where a value stands: its line, from 1, and its offset in bytes. path are the keys (string) and indexes (int)
// that lead to it; of one that leads nowhere, the last part that is there counts.
func (d *Document) At(path ...any) (line, offset int) {
	n := d.root
	for _, p := range path {
		next := (*node)(nil)
		switch p := p.(type) {
		case string:
			next = n.child(p)
		case int:
			next = n.elem(p)
		}
		if next == nil {
			break
		}
		n = next
	}
	return int(n.line), int(n.offset)
}
