package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"awe4lb/config"
)

// Paths say where in a JSON document things are: List from its root, the others from an element of that array. A path is
// a row of keys and indexes, such as
//
//	data.items[0].host    .Service.Port    meta["a.b"]
//
// A dot at the start, as jq wants one, is allowed; "." is where one stands. An empty List finds the array at the root, or
// in a key named backends or hosts there. An empty Address, Host or Port finds address, or host and port, or addr.host and
// addr.port, which are the formats of this program, of gobetween, and of the original awe4lb. The other paths default to
// the names of the text grammar. A path that is given for the address and leads nowhere is an error; others then say
// nothing. An element may also be a string, host:port.
type Paths struct {
	List, Address, Host, Port, Weight, Priority, MaxConnections, SNI, Zone, Labels string
}

type step struct {
	key   string
	index int // -1: key
}

type path []step

type paths struct {
	list, address, host, port, weight, priority, maxConnections, sni, zone, labels path
}

func (p Paths) compile() (paths, error) {
	var c paths
	var errs []error
	for _, e := range []struct {
		name, text, otherwise string
		to                    *path
	}{
		{"list", p.List, "", &c.list}, {"address", p.Address, "", &c.address}, {"host", p.Host, "", &c.host},
		{"port", p.Port, "", &c.port}, {"weight", p.Weight, "weight", &c.weight}, {"priority", p.Priority, "priority", &c.priority},
		{"max_connections", p.MaxConnections, "max_connections", &c.maxConnections}, {"sni", p.SNI, "sni", &c.sni},
		{"zone", p.Zone, "zone", &c.zone}, {"labels", p.Labels, "labels", &c.labels},
	} {
		if e.text == "" {
			e.text = e.otherwise
		}
		if e.text == "" {
			continue
		}
		var err error
		if *e.to, err = parsePath(e.text); err != nil {
			errs = append(errs, fmt.Errorf("path of %s: %w", e.name, err))
		}
	}
	if (p.Host == "") != (p.Port == "") || p.Address != "" && p.Host != "" {
		errs = append(errs, errors.New("paths: want address, or both host and port"))
	}
	return c, errors.Join(errs...)
}

// parsePath returns a path, never nil.
func parsePath(s string) (path, error) {
	p := path{}
	bad := func(at string) (path, error) {
		return nil, fmt.Errorf("got %q, which makes no sense at %q; want a path such as data.items[0].host", s, at)
	}
	if s == "." {
		return p, nil
	}
	rest := strings.TrimPrefix(s, ".")
	for first := true; rest != ""; first = false {
		at := rest
		if inner, ok := strings.CutPrefix(rest, "["); ok {
			if strings.HasPrefix(inner, `"`) {
				quoted, err := strconv.QuotedPrefix(inner)
				if err != nil || !strings.HasPrefix(inner[len(quoted):], "]") {
					return bad(at)
				}
				key, err := strconv.Unquote(quoted)
				if err != nil {
					return bad(at)
				}
				p, rest = append(p, step{key, -1}), inner[len(quoted)+1:]
				continue
			}
			number, after, ok := strings.Cut(inner, "]")
			n, err := strconv.ParseUint(number, 10, 31)
			if !ok || err != nil {
				return bad(at)
			}
			p, rest = append(p, step{"", int(n)}), after
			continue
		}
		if !first {
			if rest, ok := strings.CutPrefix(rest, "."); !ok || rest == "" {
				return bad(at)
			}
			rest = rest[1:]
		}
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 || strings.ContainsAny(rest[:end], `]"| `) {
			return bad(at)
		}
		p, rest = append(p, step{rest[:end], -1}), rest[end:]
	}
	if len(p) == 0 {
		return bad(s)
	}
	return p, nil
}

// get follows p from v; nothing there and null are the same.
func (p path) get(v any) (any, bool) {
	for _, s := range p {
		switch at := v.(type) {
		case map[string]any:
			if s.index >= 0 {
				return nil, false
			}
			v = at[s.key]
		case []any:
			if s.index < 0 || s.index >= len(at) {
				return nil, false
			}
			v = at[s.index]
		default:
			return nil, false
		}
	}
	return v, v != nil
}

func (d *decoder) json(b []byte) (List, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return List{}, errors.New(clip(strconv.QuoteToASCII(err.Error())))
	}
	if _, err := dec.Token(); err != io.EOF {
		return List{}, errors.New("something follows the document")
	}
	elements, err := d.array(root)
	if err != nil {
		return List{}, err
	}
	var list List
	for i, e := range elements {
		back, err := d.element(e)
		if err := d.entry(&list, "element", i, back, err); err != nil {
			return List{}, err
		}
	}
	return list, nil
}

// array finds the list. That it is not there never means that it is empty.
func (d *decoder) array(root any) ([]any, error) {
	at := root
	if d.paths.list != nil {
		at, _ = d.paths.list.get(root)
	} else if o, ok := root.(map[string]any); ok {
		if at, ok = o["backends"]; !ok {
			at, ok = o["hosts"]
		}
		if !ok && d.single {
			return []any{o}, nil
		}
	}
	a, ok := at.([]any)
	if !ok {
		return nil, fmt.Errorf("got %s where the list should be; want an array", kindOf(at))
	}
	return a, nil
}

func (d *decoder) element(e any) (b Backend, err error) {
	b.Weight = 1
	if s, ok := e.(string); ok && d.paths.address == nil && d.paths.host == nil {
		b.Address, err = parseAddress(s)
		return b, err
	}
	if b.Address, err = d.where(e); err != nil {
		return b, err
	}
	for _, n := range []struct {
		name string
		path path
		to   *int
	}{
		{"weight", d.paths.weight, &b.Weight}, {"priority", d.paths.priority, &b.Priority},
		{"max_connections", d.paths.maxConnections, &b.MaxConnections},
	} {
		if v, ok := n.path.get(e); ok {
			if *n.to, err = jsonNumber(n.name, v); err != nil {
				return b, err
			}
		}
	}
	for _, s := range []struct {
		name string
		path path
		to   *string
	}{{"sni", d.paths.sni, &b.SNI}, {"zone", d.paths.zone, &b.Zone}} {
		if v, ok := s.path.get(e); ok {
			if *s.to, ok = v.(string); !ok {
				return b, fmt.Errorf("%s: got %s; want a string", s.name, kindOf(v))
			}
		}
	}
	if v, ok := d.paths.labels.get(e); ok {
		b.Labels, err = jsonLabels(v)
	}
	return b, err
}

var (
	pathAddress          = path{{"address", -1}}
	pathHost, pathPort   = path{{"host", -1}}, path{{"port", -1}}
	pathHost1, pathPort1 = path{{"addr", -1}, {"host", -1}}, path{{"addr", -1}, {"port", -1}}
)

// where finds the address of an element.
func (d *decoder) where(e any) (config.Address, error) {
	address, host, port := d.paths.address, d.paths.host, d.paths.port
	if address == nil && host == nil {
		if _, ok := pathAddress.get(e); ok {
			address = pathAddress
		} else if host, port = pathHost, pathPort; true {
			if _, ok := pathHost1.get(e); ok {
				host, port = pathHost1, pathPort1
			}
		}
	}
	if address != nil {
		v, _ := address.get(e)
		s, ok := v.(string)
		if !ok {
			return config.Address{}, fmt.Errorf("address: got %s; want a string", kindOf(v))
		}
		return parseAddress(s)
	}
	v, _ := host.get(e)
	h, ok := v.(string)
	if !ok {
		return config.Address{}, fmt.Errorf("host: got %s; want a string", kindOf(v))
	}
	v, ok = port.get(e)
	if !ok {
		return config.Address{}, errors.New("port: got nothing; want 1 to 65535")
	}
	n, err := jsonNumber("port", v)
	if err != nil {
		return config.Address{}, err
	}
	return joinAddress(h, strconv.Itoa(n))
}

// jsonNumber takes 7, 7.0, 7e0 and "7".
func jsonNumber(what string, v any) (int, error) {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && f >= 0 && f <= maxConns && f == float64(int(f)) {
			return int(f), nil
		}
		return 0, fmt.Errorf("%s: got %s; want a whole number", what, quote(v.String()))
	case string:
		return parseNumber(what, v)
	}
	return 0, fmt.Errorf("%s: got %s; want a whole number", what, kindOf(v))
}

func jsonLabels(v any) (map[string]string, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("labels: got %s; want an object of strings", kindOf(v))
	}
	if len(o) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(o))
	for k, v := range o {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("label %s: got %s; want a string", quote(k), kindOf(v))
		}
		labels[k] = s
	}
	return labels, nil
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}
