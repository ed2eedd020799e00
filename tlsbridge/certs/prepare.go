package certs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge"
)

// Prepare reads and checks everything that cfg names and returns what it needs, or Errors: every mistake, each beginning
// with the place it is at (config.At). Nothing changes until Commit, which must follow before the next Prepare if at all;
// a set that is not committed is simply forgotten. What cfg has as the set in use has it keeps its *tls.Config and
// *tlsbridge.Client, and with them sessions and tickets.
func (k *Keeper) Prepare(cfg *config.Config) (*Set, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := &builder{k: k, old: k.set, cfg: cfg, now: k.now(), read: map[*watched]*reading{}, set: &Set{cfg: cfg,
		Servers: map[string]*Server{}, Clients: map[string]*tlsbridge.Client{}, pairs: map[pairKey]*pair{}, pools: map[string]*pool{}}}
	b.secret()
	for _, f := range cfg.Frontends {
		if f.TLS != nil {
			b.frontend(f)
		}
	}
	for _, p := range cfg.Pools {
		if p.TLS != nil {
			b.pool(p)
		}
	}
	if len(b.errs) > 0 {
		return nil, b.errs
	}
	return b.set, nil
}

// Check returns the mistakes that Prepare would find at the start. It changes nothing.
func Check(cfg *config.Config) []error {
	k := New(slog.New(slog.DiscardHandler), nil)
	defer k.Close()
	if _, err := k.Prepare(cfg); err != nil {
		return each(err)
	}
	return nil
}

// Notes returns what else there is to say of a configuration without mistakes: which self-signed pairs would be made, and
// what is odd about certificates. Each begins with the place it is about. It changes nothing.
func Notes(cfg *config.Config) []string {
	k := New(slog.New(slog.DiscardHandler), nil)
	defer k.Close()
	set, err := k.Prepare(cfg)
	if err != nil {
		return nil
	}
	return slices.Concat(set.notes, set.more)
}

// builder makes a Set. Used once, under Keeper.mu.
type builder struct {
	k    *Keeper
	old  *Set
	cfg  *config.Config
	now  time.Time
	set  *Set
	read map[*watched]*reading // of what stays and was read again
	errs Errors
}

// spot is a table of the configuration, to say where mistakes are.
type spot struct {
	table any    // pointer to the struct
	path  string // for configurations that no file has
}

// at returns where a key of the table at s, or an element of it, stands.
func (b *builder) at(s spot, key string, index int) string {
	v := reflect.ValueOf(s.table).Elem()
	for i := range v.NumField() {
		if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ","); tag != key {
			continue
		}
		f := v.Field(i)
		if index >= 0 && f.Kind() == reflect.Slice && index < f.Len() {
			if at := b.cfg.At(f.Index(index).Addr().Interface()); at != "" {
				return at
			}
		}
		if at := b.cfg.At(f.Addr().Interface()); at != "" {
			return at
		}
	}
	// The file does not set it: something else forbids the default.
	return cmp.Or(b.cfg.At(s.table), s.path) + "." + key
}

// fail notes the mistakes in err, *tlsbridge.OptionErrors most of them, at the table they are in.
func (b *builder) fail(s spot, err error) {
	for _, e := range each(err) {
		var option *tlsbridge.OptionError
		if errors.As(e, &option) {
			e = fmt.Errorf("%s: %s", b.at(s, option.Key, option.Index), option.Text)
		} else {
			e = fmt.Errorf("%s: %w", cmp.Or(b.cfg.At(s.table), s.path), e)
		}
		if !slices.ContainsFunc(b.errs, func(o error) bool { return o.Error() == e.Error() }) {
			b.errs = append(b.errs, e)
		}
	}
}

func (b *builder) note(s spot, key, format string, args ...any) {
	b.set.notes = append(b.set.notes, b.at(s, key, -1)+": "+fmt.Sprintf(format, args...))
}

// keep makes w part of the set. What is in use already has its reading put to use by Commit, a new one now.
func (b *builder) keep(w *watched, r *reading) {
	b.set.watched = append(b.set.watched, w)
	b.read[w] = r
	if w.value == nil {
		w.put(r, b.now)
		return
	}
	b.set.commits = append(b.set.commits, func() { b.k.putAgain(w, r) })
}

// putAgain puts to use what a reload has read of something in use.
func (k *Keeper) putAgain(w *watched, r *reading) {
	if w.digest != r.digest {
		k.counters.reloadsOK.Add(1)
		k.log.Info(w.what+" has changed: new handshakes use it", append(w.attrs(), describe(r.value)...)...)
	}
	w.put(r, k.now())
}

// secret reads the secret that ticket keys are derived from.
func (b *builder) secret() {
	e := &b.cfg.Engine
	if e.TicketSecret == "" {
		if b.set.random = b.old.random; b.set.random == nil {
			b.set.random, _ = tlsbridge.NewTickets(nil, 0) // fails only for what it is given
		}
		return
	}
	if b.set.secret = b.old.secret; b.set.secret == nil || b.set.secret.paths[0] != e.TicketSecret {
		b.set.secret = &watched{what: "ticket_secret", owner: "engine"}
		b.set.secret.add("ticket_secret", e.TicketSecret)
		b.set.secret.parse = func(contents map[string]file) (any, error) {
			tickets, err := tlsbridge.NewTickets(contents["ticket_secret"].data, 0)
			if err != nil {
				return nil, optionError("ticket_secret", err)
			}
			return tickets, nil
		}
		k := b.k
		b.set.secret.install = func(any) { k.rotate = time.Time{} } // now
	}
	s := spot{e, "engine"}
	r, err := b.set.secret.read()
	if err != nil {
		b.fail(s, err)
		return
	}
	if r.files[0].public {
		b.note(s, "ticket_secret", "everybody on this host may read %s: chmod 600 it", e.TicketSecret)
	}
	b.keep(b.set.secret, r)
}

// tickets returns what makes the keys of session tickets.
func (s *Set) tickets() *tlsbridge.Tickets {
	if s.secret != nil {
		return s.secret.value.(*tlsbridge.Tickets)
	}
	return s.random
}

// protocol is what a frontend's table and a pool's share.
func protocol(minVersion, maxVersion string, ciphers, curves, alpn []string) tlsbridge.Protocol {
	return tlsbridge.Protocol{MinVersion: minVersion, MaxVersion: maxVersion, Ciphers: ciphers, Curves: curves, ALPN: alpn}
}

// pool is how one pool speaks TLS.
type pool struct {
	table *config.PoolTLS
	files *watched // nil: no files

	// Guarded by Keeper.mu.
	client *tlsbridge.Client
	own    *tlsbridge.Certificate // nil: none
}

// poolValue is what a pool's files give.
type poolValue struct {
	client *tlsbridge.Client
	own    *tlsbridge.Certificate
}

func (b *builder) pool(p *config.Pool) {
	t := p.TLS
	at := spot{t, "pools." + p.Name + ".tls"}
	if t.Key != "" && t.Cert == "" {
		b.fail(at, optionError("key", errors.New("it has no effect without cert")))
		return
	}
	made := b.old.pools[p.Name]
	if made == nil || !reflect.DeepEqual(made.table, t) {
		made = newPool(p.Name, t)
	}
	b.set.pools[p.Name] = made
	if made.files == nil {
		if made.client == nil {
			v, err := made.build(nil)
			if err != nil {
				b.fail(at, err)
				return
			}
			made.client = v.client
		}
		b.set.Clients[p.Name] = made.client
		return
	}
	r, err := made.files.read()
	if err != nil {
		b.fail(at, err)
		return
	}
	if f := r.files[len(r.files)-1]; t.Cert != "" && f.public {
		b.note(at, "cert", "everybody on this host may read the key in %s: chmod 600 it", f.path)
	}
	b.keep(made.files, r)
	b.set.Clients[p.Name] = made.client
}

func newPool(name string, t *config.PoolTLS) *pool {
	p := &pool{table: t}
	s := &watched{what: "authorities or certificate towards backends", owner: "pools." + name + ".tls"}
	s.add("ca", t.CA)
	s.add("cert", t.Cert)
	s.add("key", t.Key)
	if len(s.paths) == 0 {
		return p
	}
	s.parse = func(contents map[string]file) (any, error) { return p.build(contents) }
	s.install = func(value any) {
		v := value.(*poolValue)
		p.own = v.own
		if p.client == nil {
			p.client = v.client
		} else {
			p.client.Adopt(v.client)
		}
	}
	p.files = s
	return p
}

// build makes a Client of the table and the contents of its files.
func (p *pool) build(contents map[string]file) (*poolValue, error) {
	t := p.table
	o := tlsbridge.ClientOptions{Protocol: protocol(t.MinVersion, t.MaxVersion, t.Ciphers, t.Curves, t.ALPN), CA: contents["ca"].data,
		ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify, NoSessions: !t.SessionCache}
	var bad error
	if t.CA != "" && len(bytes.TrimSpace(o.CA)) == 0 {
		return nil, optionError("ca", fmt.Errorf("%s: it is empty", t.CA))
	}
	if t.Cert != "" {
		o.Certificate, bad = parsePair(t.Cert, t.Key, contents)
	}
	client, err := o.Build()
	if err = errors.Join(bad, inFile(err, "ca", t.CA)); err != nil {
		return nil, err
	}
	return &poolValue{client, o.Certificate}, nil
}

// inFile names the file in the mistakes about a key.
func inFile(err error, key, path string) error {
	if err == nil || path == "" {
		return err
	}
	var all []error
	for _, e := range each(err) {
		var option *tlsbridge.OptionError
		if errors.As(e, &option) && option.Key == key {
			e = optionError(key, fmt.Errorf("%s: %s", path, option.Text))
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}
