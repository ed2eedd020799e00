package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a health table asks for: which keys go with which kind, and what its texts mean.

var (
	conversation = []string{"tcp", "tls", "udp"}
	mayUseTLS    = []string{"tls", "http", "grpc", "redis", "postgres"}
	overNetwork  = []string{"tcp", "tls", "http", "grpc", "udp", "exec", "agent", "redis", "postgres", "mysql"}
)

// keysOfKind lists the keys of a health table that are not for every kind, with the kinds they are for.
var keysOfKind = map[string][]string{
	"address": overNetwork, "port": overNetwork,
	"source":      {"tcp", "tls", "http", "grpc", "udp", "agent", "redis", "postgres", "mysql"},
	"tls":         {"http", "grpc", "redis", "postgres"},
	"server_name": mayUseTLS, "ca": mayUseTLS, "cert": mayUseTLS, "key": mayUseTLS, "insecure_skip_verify": mayUseTLS, "expiry_warning": mayUseTLS,
	"method": {"http"}, "path": {"http"}, "host": {"http", "grpc"}, "headers": {"http"}, "status": {"http"}, "body": {"http"}, "body_regexp": {"http"},
	"follow_redirects": {"http"},
	"service":          {"grpc"},
	"send":             append([]string{"agent"}, conversation...),
	"expect":           append([]string{"postgres"}, conversation...), "expect_regexp": conversation,
	"read_limit": append([]string{"http"}, conversation...),
	"command":    {"exec"}, "output_up": {"exec"}, "output_down": {"exec"},
	"user": {"redis", "postgres", "mysql"}, "password": {"redis", "postgres"}, "database": {"postgres"}, "query": {"postgres"},
	"pool": {"pool"}, "follow": {"pool"},
	"interval": overNetwork, "interval_down": overNetwork, "timeout": overNetwork, "rise": overNetwork, "fall": overNetwork, "initial": overNetwork,
	"jitter": overNetwork,
}

// checkHealth checks the health table of p and fills in what follows from others.
func (d *decoder) checkHealth(p *Pool) {
	h := p.Health
	if h == nil || d.places[h].bad || d.places[&h.Kind].bad {
		d.checkNoHealth(p)
		return
	}
	d.checkKeysOfKind(h)
	if h.Kind == "none" {
		d.checkNoHealth(p)
		return
	}
	d.checkHealthTimes(h)
	d.checkHealthTLS(p, h)
	switch h.Kind {
	case "http":
		d.checkHealthHTTP(h)
	case "exec":
		d.checkHealthCommand(h)
	case "agent":
		if !d.isSet(&h.Port) {
			d.fail(d.places[h].key("port"), Error{Problem: "is missing", Want: "the port where the agent answers"})
		}
	case "udp":
		if !d.isSet(&h.Send) {
			d.fail(d.places[h].key("send"), Error{Problem: "is missing", Want: "what to send", Hint: "without a datagram there is no answer"})
		}
	}
	h.SendBytes, _ = d.escaped(&h.Send)
	if h.Kind == "postgres" {
		d.checkHealthPostgres(h)
	} else {
		h.ExpectBytes, _ = d.escaped(&h.Expect)
		if p, ok := d.places[&h.Expect]; ok && !p.bad && Size(len(h.ExpectBytes)) > h.ReadLimit {
			d.fail(p, Error{Got: fmt.Sprintf("%d bytes", len(h.ExpectBytes)), Want: fmt.Sprintf("at most read_limit, which is %v", h.ReadLimit)})
		}
	}
	d.checkExpression(&h.ExpectRegexp)
	d.checkExpression(&h.BodyRegexp)
	if at, ok := d.places[&h.ExpectRegexp]; ok && !at.bad && d.isSet(&h.Expect) {
		d.fail(at, Error{Problem: "expect is there too", Want: "one of the two"})
	}
	for _, b := range p.Backends {
		if b.Address.IsUnix() && (h.Address.IsValid() || h.Port != 0) && (!h.Address.IsValid() || h.Port == 0) {
			at, other := d.places[&h.Address], "port"
			if h.Port != 0 {
				at, other = d.places[&h.Port], "address"
			}
			d.fail(at, Error{Got: d.places[&b.Address].got() + " as a backend", Want: other + " too", Hint: "a unix socket has none"})
			break
		}
		if b.Address.IsUnix() && h.Kind == "udp" && h.Port == 0 {
			d.fail(d.places[&h.Kind], Error{Got: `"udp"`, Want: "a kind for unix sockets", Hint: d.places[&b.Address].path + " is one"})
			break
		}
	}
	if h.Kind != "pool" && !h.Source.IsValid() && !h.Address.IsValid() {
		h.Source = d.poolSource(p)
	}
}

// checkNoHealth warns of keys of a pool that have no effect without health.
func (d *decoder) checkNoHealth(p *Pool) {
	for _, field := range []*string{&p.OnDown} {
		if at, ok := d.places[field]; ok && !at.bad && !p.Health.Checks() {
			d.warn(at, "the pool has no health check, so that this has no effect", "")
		}
	}
}

// checkKeysOfKind refuses keys that have no meaning for the kind.
func (d *decoder) checkKeysOfKind(h *Health) {
	table := d.places[h]
	if table.node == nil {
		return
	}
	for key, kinds := range keysOfKind {
		if table.node.child(key) != nil && !slices.Contains(kinds, h.Kind) {
			d.fail(table.key(key), Error{Problem: fmt.Sprintf("is not for kind %q", h.Kind), Want: "kind " + list(quoted(kinds), "or")})
		}
	}
}

// checkHealthTimes checks that probes of a backend do not overlap.
func (d *decoder) checkHealthTimes(h *Health) {
	shorter, name := h.Interval, "interval"
	if h.IntervalDown > 0 && h.IntervalDown < shorter {
		shorter, name = h.IntervalDown, "interval_down"
	}
	switch p, ok := d.places[&h.Timeout]; {
	case !ok:
		h.Timeout = min(h.Timeout, shorter)
	case !p.bad && h.Timeout > shorter:
		d.fail(p, Error{Got: p.got(), Want: "at most " + name + ", which is " + shortDuration(int64(shorter))})
	}
}

// poolSource returns the address that a pool connects from, for checks: the first that reaches any backend.
func (d *decoder) poolSource(p *Pool) (none netip.Addr) {
	if p.Discovery != nil && len(p.Source) > 0 {
		return p.Source[0]
	}
	for _, ip := range p.Source {
		for _, b := range p.Backends {
			if b.Address.IP.IsValid() && b.Address.IP.Addr().Is4() == ip.Is4() {
				return ip
			}
		}
	}
	return none
}

// checkHealthTLS decides whether the check speaks TLS, and takes from the pool what the check leaves out.
func (d *decoder) checkHealthTLS(p *Pool, h *Health) {
	switch {
	case !slices.Contains(mayUseTLS, h.Kind):
	case h.Kind == "tls" || h.TLS == "yes":
		h.UseTLS = true
	default:
		h.UseTLS = h.TLS == "auto" && p.TLS != nil
	}
	d.localFile(&h.CA)
	d.localFile(&h.Cert)
	d.localFile(&h.Key)
	if at, ok := d.places[&h.ServerName]; ok && !at.bad {
		name, c := parseServerName(h.ServerName)
		if c != nil {
			d.refuse(at, *c)
		}
		h.ServerName = name
	}
	if at, ok := d.places[&h.Key]; ok && !at.bad && h.Key != "" && h.Cert == "" && !d.places[&h.Cert].bad {
		d.fail(at, Error{Got: at.got(), Want: "cert too", Hint: "a key is of no use without its certificate"})
	}
	if t := p.TLS; t != nil && h.UseTLS {
		if !d.isSet(&h.InsecureSkipVerify) && !d.isSet(&h.CA) {
			h.InsecureSkipVerify = t.InsecureSkipVerify
		}
		if h.ServerName == "" {
			h.ServerName = t.ServerName
		}
		if h.CA == "" && !h.InsecureSkipVerify {
			h.CA = t.CA
		}
		if h.Cert == "" {
			h.Cert, h.Key = t.Cert, t.Key
		}
	}
	if at, ok := d.places[&h.InsecureSkipVerify]; ok && h.InsecureSkipVerify {
		if h.CA != "" {
			d.fail(at, Error{Problem: "ca is there too", Want: "one of the two"})
		}
		d.warn(at, "the check takes any certificate: whoever gets between awe4lb and the backends can say that they are up", "")
	}
	if !h.UseTLS {
		for key, field := range map[string]any{"server_name": &h.ServerName, "ca": &h.CA, "cert": &h.Cert} {
			if at, ok := d.places[field]; ok && slices.Contains(keysOfKind[key], h.Kind) && !at.bad {
				d.warn(at, "the check speaks no TLS, so that this has no effect", `write tls = "yes"`)
			}
		}
	} else if h.ServerName == "" && !h.InsecureSkipVerify {
		if i := slices.IndexFunc(p.Backends, func(b *Backend) bool { return b.Address.IsUnix() }); i >= 0 && !h.Address.IsValid() {
			d.fail(d.places[h].key("server_name"), Error{Problem: "is missing", Want: "whom to expect", Hint: d.places[&p.Backends[i].Address].path + " is a unix socket, which has no IP address to expect"})
		}
	}
}

func (d *decoder) checkHealthHTTP(h *Health) {
	if at, ok := d.places[&h.Method]; ok && !at.bad && !isToken(h.Method) {
		d.refuse(at, complaint{want: "a method such as GET, HEAD or OPTIONS"})
	}
	if at, ok := d.places[&h.Path]; ok && !at.bad && (!strings.HasPrefix(h.Path, "/") || strings.ContainsAny(h.Path, " #") || len(h.Path) > 2048) {
		c := complaint{want: "a path such as /health or /health?full=1"}
		if !strings.HasPrefix(h.Path, "/") && !strings.ContainsAny(h.Path, " #:") {
			c.fix = "/" + h.Path
		}
		d.refuse(at, c)
	}
	if at, ok := d.places[&h.Host]; ok && !at.bad && (h.Host == "" || strings.ContainsAny(h.Host, " /@?#") || len(h.Host) > 255) {
		d.refuse(at, complaint{want: "a name such as www.example.com, with a port if need be"})
	}
	d.each(h.Headers, parseHeader)
	if set, ok := parseStatuses(h.Status); ok {
		h.StatusSet = set
	} else if at := d.places[&h.Status]; !at.bad {
		d.refuse(at, complaint{want: `statuses from 100 to 599 such as "200", "200-299" or "200-299,401"`})
	}
	if at, ok := d.places[&h.Body]; ok && h.Method == "HEAD" && h.Body != "" {
		d.fail(at, Error{Problem: "an answer to HEAD has no body", Want: `method = "GET"`})
	}
}

// parseHeader reads "Name: value". What the client sets itself cannot be given.
func parseHeader(s string) (string, *complaint) {
	c := &complaint{want: `"Name: value"`}
	name, value, ok := strings.Cut(s, ":")
	switch {
	case !ok || !isToken(name) || len(s) > 4096:
	case strings.EqualFold(name, "host"):
		c.hint = "host is a key of its own"
	case slices.Contains([]string{"connection", "content-length", "transfer-encoding", "te", "upgrade", "trailer"}, strings.ToLower(name)):
		c.hint = "awe4lb sets it itself"
	default:
		return name + ": " + strings.TrimSpace(value), nil
	}
	return "", c
}

// isToken reports whether s is a token of RFC 9110.
func isToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; !bareByte(b) && !strings.ContainsRune("!#$%&'*+.^`|~", rune(b)) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// parseStatuses reads a set such as "200-299,401".
func parseStatuses(s string) (set []StatusRange, ok bool) {
	if len(s) > 1024 {
		return nil, false
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.Atoi(strings.TrimSpace(low))
		last, err2 := strconv.Atoi(strings.TrimSpace(high))
		if err1 != nil || err2 != nil || first < 100 || last > 599 || first > last {
			return nil, false
		}
		set = append(set, StatusRange{first, last})
	}
	return set, true
}

func (d *decoder) checkHealthCommand(h *Health) {
	at, ok := d.places[&h.Command]
	switch {
	case !ok:
		d.fail(d.places[h].key("command"), Error{Problem: "is missing", Want: `a program and its arguments, such as ["/usr/local/bin/check", "$host", "$port"]`})
		return
	case at.bad || h.Command == nil:
		return
	case len(h.Command) == 0:
		d.fail(at, Error{Got: "an empty array", Want: "a program and its arguments"})
		return
	}
	for i := range h.Command {
		if d.places[&h.Command[i]].bad {
			return
		}
	}
	if first := d.places[&h.Command[0]]; !strings.HasPrefix(h.Command[0], "/") {
		c := complaint{want: "the absolute path of a program", hint: "arguments are elements of their own, and no shell looks for the program"}
		d.refuse(first, c)
	}
	if h.OutputUp != "" && h.OutputUp == h.OutputDown {
		d.fail(d.places[&h.OutputDown], Error{Problem: "output_up is the same", Want: "another output"})
	}
}

func (d *decoder) checkHealthPostgres(h *Health) {
	for key, field := range map[string]*string{"password": &h.Password, "database": &h.Database, "query": &h.Query} {
		if at, ok := d.places[field]; ok && !at.bad && *field != "" && h.User == "" {
			d.fail(d.places[h].key(key), Error{Problem: "is of no use without a user", Want: "user too"})
		}
	}
	if at, ok := d.places[&h.Expect]; ok && !at.bad && h.Query == "" {
		d.fail(at, Error{Problem: "there is no query whose answer could be compared", Want: "query too"})
	}
	h.ExpectBytes = []byte(h.Expect)
}

// checkHealthPools checks what those follow that follow the health of another pool. It comes after all pools are checked.
func (d *decoder) checkHealthPools() {
	for _, p := range d.cfg.Pools {
		h := p.Health
		if h == nil || h.Kind != "pool" || d.places[h].bad {
			continue
		}
		if d.checkMissing(&h.Pool, d.places[h].key("pool"), "the name of a pool") || d.places[&h.Pool].bad {
			continue
		}
		at, other := d.places[&h.Pool], d.cfg.Pool(h.Pool)
		switch {
		case other == nil:
			continue // told by checkReferences
		case other == p:
			d.fail(at, Error{Got: at.got(), Want: "another pool"})
		case other.Health.Checks() && other.Health.Kind == "pool":
			d.fail(at, Error{Got: at.got(), Want: "a pool with a check of its own", Hint: d.places[other].path + " follows another itself"})
		case !other.Health.Checks():
			d.warn(at, "that pool has no health check: its backends are always up", "")
		case h.Follow == "host" && other.Discovery == nil:
			for _, b := range p.Backends {
				if b.Address.IsValid() && !slices.ContainsFunc(other.Backends, func(o *Backend) bool { return b.Address.SameHost(o.Address) }) {
					d.warn(d.places[&b.Address], "pool "+joinKey("", h.Pool)+", whose health counts, has no backend with this IP address: it is always up", "")
				}
			}
		}
	}
}

// SameHost reports whether a and b have the same IP address, or are the same unix socket.
func (a Address) SameHost(b Address) bool {
	if a.IsUnix() || b.IsUnix() {
		return a == b
	}
	return a.IP.Addr() == b.IP.Addr()
}

// checkExpression checks a regular expression.
func (d *decoder) checkExpression(field *string) {
	p, ok := d.places[field]
	if !ok || p.bad {
		return
	}
	c := complaint{want: "a regular expression in the syntax of RE2"}
	d.regexps++
	_, err := syntax.Parse(*field, syntax.Perl)
	var wrong *syntax.Error
	switch {
	case d.regexps > maxRegexps:
		c.want = fmt.Sprintf("at most %d regular expressions", maxRegexps)
	case errors.As(err, &wrong):
		c.hint = string(wrong.Code)
	case err != nil:
		c.hint = "it cannot be compiled"
	case tooLarge(*field):
		c.hint = fmt.Sprintf("it is too large: compiled it has more than %d instructions", maxRegexp)
	default:
		if _, err := regexp.Compile(*field); err == nil {
			return
		}
	}
	d.refuse(p, c)
}

// escaped returns what a text with C escapes stands for.
func (d *decoder) escaped(field *string) ([]byte, bool) {
	p, ok := d.places[field]
	if !ok || p.bad {
		return nil, false
	}
	b, wrong := unescapeC(*field)
	if wrong != "" {
		d.refuse(p, complaint{want: `text with the escapes \n \r \t \0 \\ \" and \x00 to \xff`, hint: "in a string with double quotes TOML has escapes of its own: use single quotes, or two backslashes"})
		return nil, false
	}
	return b, true
}

var simpleEscapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '0': 0, '\\': '\\', '"': '"', '\'': '\'', 'a': 7, 'b': 8, 'f': 12, 'v': 11, 'e': 27}

// unescapeC replaces the escapes of C in s, or returns the one that is wrong.
func unescapeC(s string) (b []byte, wrong string) {
	var out bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return nil, `\`
		}
		if c, ok := simpleEscapes[s[i]]; ok {
			out.WriteByte(c)
			continue
		}
		if s[i] != 'x' || i+2 >= len(s) {
			return nil, s[i-1 : i+1]
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return nil, s[i-1 : i+3]
		}
		out.WriteByte(byte(n))
		i += 2
	}
	return out.Bytes(), ""
}

// Every returns the time from the beginning of a probe to that of the next.
func (h *Health) Every(up bool) time.Duration {
	if !up && h.IntervalDown > 0 {
		return h.IntervalDown
	}
	return h.Interval
}
