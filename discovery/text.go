package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"awe4lb/config"
)

// The grammar of text: a backend per line. Empty lines and what follows a # at the start of a line or after white space are
// nothing. Two forms, the second being that of the original awe4lb, in which host is never bracketed but may be:
//
//	host:port [weight=N] [priority=N] [max_connections=N] [sni=NAME] [zone=NAME] [label.KEY=VALUE]…
//	host port [weight priority]
//
// host is an IP address or localhost. gobetween's lines are a part of the first form. What is not said is weight 1,
// priority 0, no limit.

func (d *decoder) text(b []byte) (List, error) {
	var list List
	n := 0
	for line := range bytes.Lines(b) {
		n++
		var back Backend
		var err error
		if d.line != nil {
			text := strings.TrimSpace(string(line))
			if text == "" {
				continue
			}
			back, err = d.match(text)
		} else {
			words := strings.Fields(string(line))
			if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); i >= 0 {
				words = words[:i]
			}
			if len(words) == 0 {
				continue
			}
			back, err = parseLine(words)
		}
		if err := d.entry(&list, "line", n, back, err); err != nil {
			return List{}, err
		}
	}
	return list, nil
}

func parseLine(words []string) (b Backend, err error) {
	b = Backend{Weight: 1}
	if len(words) > 1 && strings.Trim(words[1], "0123456789") == "" {
		if b.Address, err = joinAddress(words[0], words[1]); err != nil {
			return b, err
		}
		switch len(words) {
		case 2:
		case 4:
			if err = b.attribute("weight", words[2]); err == nil {
				err = b.attribute("priority", words[3])
			}
		default:
			err = fmt.Errorf("got %d words; want host, port, and then nothing or weight and priority", len(words))
		}
		return b, err
	}
	if b.Address, err = parseAddress(words[0]); err != nil {
		return b, err
	}
	seen := map[string]bool{}
	for _, w := range words[1:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok || value == "" {
			return b, fmt.Errorf("got %s; want KEY=VALUE", quote(w))
		}
		if seen[key] {
			return b, fmt.Errorf("%s is there twice", quote(key))
		}
		seen[key] = true
		if err := b.attribute(key, value); err != nil {
			return b, err
		}
	}
	return b, nil
}

// attribute sets what a key of the grammar stands for.
func (b *Backend) attribute(key, value string) (err error) {
	switch key {
	case "weight":
		b.Weight, err = parseNumber(key, value)
	case "priority":
		b.Priority, err = parseNumber(key, value)
	case "max_connections":
		b.MaxConnections, err = parseNumber(key, value)
	case "sni":
		b.SNI = value
	case "zone":
		b.Zone = value
	default:
		label, ok := strings.CutPrefix(key, "label.")
		if !ok || label == "" {
			return fmt.Errorf("got %s; want weight, priority, max_connections, sni, zone or label.KEY", quote(key))
		}
		if b.Labels == nil {
			b.Labels = map[string]string{}
		}
		b.Labels[label] = value
	}
	return err
}

// compileLine checks a regular expression for lines: its groups named host and port, or address, say where the backend is;
// weight, priority, max_connections, sni, zone and label_KEY may be there.
func (d *decoder) compileLine(s string) error {
	re, err := regexp.Compile(s)
	if err != nil {
		return fmt.Errorf("line: %w", err)
	}
	groups := map[string]int{}
	for i, name := range re.SubexpNames() {
		if name == "" {
			continue
		}
		label, isLabel := strings.CutPrefix(name, "label_")
		if isLabel {
			name = "label." + label
		}
		if !isLabel && !slices.Contains([]string{"address", "host", "port", "weight", "priority", "max_connections", "sni", "zone"}, name) {
			return fmt.Errorf("line: got a group %q; want address, host, port, weight, priority, max_connections, sni, zone or label_KEY", name)
		}
		if _, twice := groups[name]; twice {
			return fmt.Errorf("line: two groups are named %q", name)
		}
		groups[name] = i
	}
	_, whole := groups["address"]
	_, host := groups["host"]
	_, port := groups["port"]
	if whole == host || host != port {
		return errors.New("line: want a group named address, or two named host and port: (?P<host>…) (?P<port>…)")
	}
	d.line, d.groups = re, groups
	return nil
}

// match reads a line by the regular expression. Groups that took no part, or are empty, say nothing.
func (d *decoder) match(line string) (b Backend, err error) {
	m := d.line.FindStringSubmatch(line)
	if m == nil {
		return b, fmt.Errorf("got %s; want what the regular expression matches", quote(line))
	}
	b.Weight = 1
	var a config.Address
	if i, ok := d.groups["address"]; ok {
		a, err = parseAddress(m[i])
	} else {
		a, err = joinAddress(m[d.groups["host"]], m[d.groups["port"]])
	}
	b.Address = a
	for key, i := range d.groups {
		if err == nil && m[i] != "" && key != "address" && key != "host" && key != "port" {
			err = b.attribute(key, m[i])
		}
	}
	return b, err
}
