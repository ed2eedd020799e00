package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// RedisOptions say which key of a Redis server, or of one that speaks the same, is the list.
type RedisOptions struct {
	Address  string // host:port or unix:///path
	Key      string // a string, which is a list; a set, each of whose members is one; or a hash, each of whose values is one
	DB       int    // 0 to 65535
	User     string // of an ACL; "" = default. With Password
	Password Secret
	UseTLS   bool
	TLS      HTTPTLS        // with UseTLS
	Allow    []netip.Prefix // as in HTTPOptions; this machine is allowed
	Decoding                // as in EtcdOptions: of the string, of each member, of each value
	MaxBytes int64          // of all that is read; 0 = 4 MiB
}

// redis asks for a key, by RESP2, over a connection of its own each time.
type redis struct {
	o      RedisOptions
	dec    *decoder
	most   int64
	unix   string // path; "" = TCP
	tls    *tls.Config
	dialer net.Dialer
}

// NewRedis returns a source that asks for a key. That there is none is an empty list. A value of a hash that is empty
// means that its field is the address.
func NewRedis(o RedisOptions) (Source, error) {
	r, err := newRedis(o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	return r, nil
}

func newRedis(o RedisOptions) (*redis, error) {
	r := &redis{o: o}
	path, isUnix := strings.CutPrefix(o.Address, "unix://")
	host, port, err := net.SplitHostPort(o.Address)
	if n, e := strconv.ParseUint(port, 10, 16); e != nil || n == 0 {
		err = errors.New("no port")
	}
	switch {
	case isUnix && (!filepath.IsAbs(path) || o.UseTLS):
		return nil, errors.New("address: want an absolute path behind unix://, and no TLS")
	case !isUnix && (err != nil || host == "" || checkText("", o.Address) != nil):
		return nil, fmt.Errorf("address: got %s; want host:port or unix:///path", quote(redactText(o.Address)))
	case o.Key == "" || checkText("", o.Key) != nil:
		return nil, fmt.Errorf("key: got %s; want a name", quote(o.Key))
	case o.DB < 0 || o.DB > 65535:
		return nil, fmt.Errorf("db: got %d; want 0 to 65535", o.DB)
	case o.User != "" && !o.Password.set():
		return nil, errors.New("user: want a password with it")
	case !o.UseTLS && o.TLS != (HTTPTLS{}):
		return nil, errors.New("tls: has settings, and is not used")
	}
	if isUnix {
		r.unix = path
	} else {
		r.dialer.ControlContext = allowed(append(slices.Clone(o.Allow), loopback...))
	}
	if o.UseTLS {
		if r.tls, err = o.TLS.config(); err != nil {
			return nil, err
		}
		if r.tls.ServerName == "" {
			r.tls.ServerName = host
		}
	}
	if r.dec, err = newDecoder(o.Decoding); err != nil {
		return nil, err
	}
	r.dec.single = true
	r.most, err = maxBytes(o.MaxBytes)
	return r, err
}

func (r *redis) String() string { return fmt.Sprintf("redis:%s/%d/%s", r.o.Address, r.o.DB, r.o.Key) }

// Fetch asks for the key.
func (r *redis) Fetch(ctx context.Context) (List, error) {
	list, err := r.fetch(ctx)
	if err != nil {
		return List{}, fmt.Errorf("redis:%s: %w", r.o.Address, err)
	}
	return list, nil
}

func (r *redis) fetch(ctx context.Context) (List, error) {
	password, err := r.o.Password.read()
	if err != nil {
		return List{}, err
	}
	conn, err := r.dial(ctx)
	if err != nil {
		return List{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := newRESP(conn, r.most)
	switch {
	case r.o.User != "":
		_, err = c.do("AUTH", r.o.User, password)
	case password != "":
		_, err = c.do("AUTH", password)
	}
	if err == nil && r.o.DB != 0 {
		_, err = c.do("SELECT", strconv.Itoa(r.o.DB))
	}
	if err != nil {
		return List{}, err
	}
	return r.read(c)
}

func (r *redis) dial(ctx context.Context) (net.Conn, error) {
	network, address := "tcp", r.o.Address
	if r.unix != "" {
		network, address = "unix", r.unix
	}
	if r.tls != nil {
		return (&tls.Dialer{NetDialer: &r.dialer, Config: r.tls}).DialContext(ctx, network, address)
	}
	return r.dialer.DialContext(ctx, network, address)
}

// redisCommands read a key of each type.
var redisCommands = map[string]string{"string": "GET", "set": "SMEMBERS", "hash": "HGETALL"}

func (r *redis) read(c *resp) (List, error) {
	kind, err := c.do("TYPE", r.o.Key)
	if err != nil {
		return List{}, err
	}
	if len(kind) != 1 || kind[0] == "none" {
		return List{}, nil
	}
	command := redisCommands[kind[0]]
	if command == "" {
		return List{}, fail(ReasonDecode, fmt.Errorf("the key is a %s; want a string, a set or a hash", quote(kind[0])))
	}
	values, err := c.do(command, r.o.Key)
	if err != nil {
		return List{}, err
	}
	return r.dec.redis(command, values)
}

// redis reads what a command has answered. Sets and hashes have no order, so they are sorted.
func (d *decoder) redis(command string, values []string) (List, error) {
	var list List
	step := 1
	switch command {
	case "SMEMBERS":
		slices.Sort(values)
	case "HGETALL":
		if step = 2; len(values)%2 != 0 {
			return list, fail(ReasonDecode, errors.New("got a field without a value"))
		}
		pairs := slices.Collect(slices.Chunk(values, 2))
		slices.SortFunc(pairs, slices.Compare[[]string])
		values = slices.Concat(pairs...)
	}
	for i := 0; i < len(values); i += step {
		key, what := "", "the value"
		if step == 2 {
			key, what = values[i], "field "+quote(values[i])
		}
		one, err := d.value(key, []byte(values[i+step-1]))
		if err := d.join(&list, what, one, err); err != nil {
			return List{}, err
		}
	}
	return list, nil
}
