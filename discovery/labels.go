package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// labelPrefix begins the labels that are meant for us.
const labelPrefix = "awe4lb."

// Labels of containers and instances that say what the text grammar says, each behind a prefix:
//
//	port=8080 | 8080,8443   weight=N   priority=N   max_connections=N   sni=NAME   zone=NAME   label.KEY=VALUE
//	network=NAME (docker)   interface=NAME (lxd)   enable=false
//
// More than one port makes as many backends. enable=false takes a container out, as if it were not there.
type labelled struct {
	Backend          // without an address
	ports   []uint16 // nil = not said
	place   string   // the network or the interface
	off     bool
}

// readLabels takes what begins with prefix out of labels; place is the name of the key that says where the address is. What
// nobody knows is an error: a label that is misspelt would otherwise say nothing, and nobody would see it.
func readLabels(labels map[string]string, prefix, place string) (l labelled, err error) {
	l.Weight = 1
	var keys []string
	for k := range labels {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys) // so that of several mistakes it is always the same that is told
	for _, full := range keys {
		value := strings.TrimSpace(labels[full])
		switch key := full[len(prefix):]; key {
		case "port":
			l.ports, err = parsePorts(value)
		case place:
			l.place = value
		case "enable":
			var on bool
			if on, err = strconv.ParseBool(value); err != nil {
				err = fmt.Errorf("got %s; want true or false", quote(value))
			}
			l.off = !on
		case "pool": // what operators select by
		default:
			err = l.attribute(key, value)
		}
		if err != nil {
			return l, fmt.Errorf("label %s: %w", quote(full), err)
		}
	}
	return l, nil
}

// parsePorts reads one port or several, with commas between them.
func parsePorts(s string) ([]uint16, error) {
	var all []uint16
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("got %s; want 1 to 65535", quote(s))
		}
		if len(all) == maxPorts {
			return nil, fmt.Errorf("more than %d ports", maxPorts)
		}
		all = append(all, uint16(n))
	}
	return all, nil
}

const maxPorts = 64 // of one container

// tag adds a label that we know ourselves, unless the source has said one of that name or the value is not fit for one.
func (l *labelled) tag(key, value string) {
	if _, ok := l.Labels[key]; ok || value == "" || checkText("", value) != nil {
		return
	}
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}
	l.Labels[key] = value
}

// skip leaves out an entry that makes no sense, and counts it. What one container says wrongly concerns it alone: those who
// start it are often not those who run the others.
func (l *List) skip(what string, err error) {
	if l.Skipped == 0 {
		l.Why = clip(what + ": " + err.Error())
	}
	l.Skipped++
}

// add adds a backend that passes Check.
func (l *List) add(what string, b Backend) {
	if err := b.Check(); err != nil {
		l.skip(what, err)
		return
	}
	l.Backends = append(l.Backends, b)
}

// checkLabel reads KEY or KEY=VALUE.
func checkLabel(s string) error {
	key, _, _ := strings.Cut(s, "=")
	if key == "" || checkText("", s) != nil {
		return fmt.Errorf("got %s; want KEY or KEY=VALUE", quote(s))
	}
	return nil
}

var errNoPort = errors.New("no port is said; want a label " + labelPrefix + "port, or port in the configuration")
