package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DockerOptions say which containers of a Docker daemon are backends. Podman's service speaks the same.
type DockerOptions struct {
	Endpoint string              // unix:///path, tcp://host:port (with TLS when there is a Cert or a CA), http:// or https://; "" = unix:///var/run/docker.sock
	TLS      HTTPTLS             // authorities and client certificate of TCP
	Allow    []netip.Prefix      // as in HTTPOptions; this machine is allowed
	Labels   []string            // KEY or KEY=VALUE; a container must have them all. gobetween: docker_container_label
	Filters  map[string][]string // Docker's own filters beside them: name, network, ancestor, health, …; values of one filter are alternatives

	Port      int    // of the container, 0 to 65535; 0 = its label, or the only one it exposes. gobetween: docker_container_private_port
	UDP       bool   // exposed and published ports are those of UDP
	Network   string // name of the network on which a container is reached; "" = its label, or its only one. Not with Published
	IPv6      bool   // the container's IPv6 address, where it has one on that network
	Published bool   // reach containers by the ports that they publish on the host, as gobetween does
	Host      string // IP address of the host, for Published ports that are published on all of its addresses and for containers on the host's network; "" = that of Endpoint, for a unix socket 127.0.0.1
	HostEnv   string // environment variable of a container that says Host for it; not with Network. gobetween: docker_container_host_env_var
	SNILabel  string // a label that is the SNI, where awe4lb.sni is not said. gobetween's is sni
	Unhealthy bool   // also containers whose own HEALTHCHECK fails or has not passed yet

	Resync   time.Duration // how long an event stream is trusted before it is opened and everything listed anew, 1s to 1h; 0 = 30 s
	MaxBytes int64         // of an answer; 0 = 4 MiB
}

// docker lists running containers, and lists them again when an event says that one of them has changed.
type docker struct {
	// Set once.
	o       DockerOptions
	api     *web
	host    netip.Addr // invalid: unknown
	filters string
	follower

	// Owned by the goroutine that calls Fetch or Watch.
	version string            // of the API, as negotiated, with a slash before it
	hosts   map[string]string // HostEnv of containers by ID; it never changes while one lives
}

// We read what has not changed between these. A daemon that offers newer ones is asked for ours, see negotiate.
const (
	dockerOldest = 24 // 1.24, Docker 1.12; podman says 1.40 or more
	dockerNewest = 51 // 1.51, Docker 28
)

// dockerEvents may change the list. Filters by label would leave out those of networks, which have none.
var dockerEvents = queryJSON(map[string][]string{
	"type":  {"container", "network"},
	"event": {"start", "die", "pause", "unpause", "rename", "update", "destroy", "health_status", "connect", "disconnect"},
})

// NewDocker returns a source that follows the running containers of a daemon. A container that makes no sense, or has no
// address yet, is left out and counted. Labels that begin with awe4lb. say more about it: see labels.go; its name is the
// label container.
func NewDocker(o DockerOptions) (Watcher, error) {
	d, err := newDocker(o)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	return d, nil
}

func newDocker(o DockerOptions) (*docker, error) {
	d := &docker{o: o}
	for _, l := range o.Labels {
		if err := checkLabel(l); err != nil {
			return nil, fmt.Errorf("labels: %w", err)
		}
	}
	switch {
	case o.Port < 0 || o.Port > 65535:
		return nil, fmt.Errorf("port: got %d; want 0 to 65535", o.Port)
	case o.Published && o.Network != "":
		return nil, errors.New("network: want it, or published ports, not both")
	case o.HostEnv != "" && o.Network != "":
		return nil, errors.New("host_env: is for ports of the host; want it without network")
	case strings.ContainsAny(o.HostEnv, "=\x00"):
		return nil, fmt.Errorf("host_env: got %s; want the name of a variable", quote(o.HostEnv))
	}
	filters := map[string][]string{"status": {"running"}}
	for k, v := range o.Filters {
		if k == "" || k == "status" || len(v) == 0 {
			return nil, fmt.Errorf("filters: got %s; want any but status, with values", quote(k))
		}
		filters[k] = slices.Clone(v)
	}
	if len(o.Labels) > 0 {
		filters["label"] = append(filters["label"], o.Labels...)
	}
	d.filters = queryJSON(filters)
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = "unix:///var/run/docker.sock"
	}
	if rest, ok := strings.CutPrefix(endpoint, "tcp://"); ok {
		endpoint = "http://" + rest
		if o.TLS != (HTTPTLS{}) {
			endpoint = "https://" + rest
		}
	}
	var err error
	if d.api, err = newAPI(endpoint, o.TLS, o.Allow, o.MaxBytes); err != nil {
		return nil, err
	}
	if d.resync, err = checkResync(o.Resync); err != nil {
		return nil, err
	}
	if d.host, err = hostAddress(o.Host, endpoint); err != nil {
		return nil, err
	}
	d.patience = askTimeout
	d.open, d.list = d.events, d.containers
	return d, nil
}

// hostAddress returns where the ports of a daemon's host are.
func hostAddress(host, endpoint string) (netip.Addr, error) {
	if host != "" {
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return ip, fmt.Errorf("host: got %s; want an IP address", quote(host))
		}
		_, err = addressOf(ip, 1)
		return ip.Unmap(), err
	}
	if strings.HasPrefix(endpoint, "unix:") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return netip.Addr{}, nil
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	return ip.Unmap(), nil
}

func queryJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings
	}
	return string(b)
}

func (d *docker) String() string {
	s := "docker:" + d.api.name
	if len(d.o.Labels) > 0 {
		s += " " + strings.Join(d.o.Labels, ",")
	}
	o := d.o
	return s + " …" + digest(d.filters, o.Network, o.Host, o.HostEnv, o.SNILabel, fmt.Sprint(o.Port, o.UDP, o.IPv6, o.Published, o.Unhealthy))
}

// Fetch lists the containers.
func (d *docker) Fetch(ctx context.Context) (List, error) {
	defer d.api.forget()
	d.version = ""
	list, _, err := d.containers(ctx)
	return list, d.named(err)
}

// Watch reports the containers after each event, and every resync.
func (d *docker) Watch(ctx context.Context, report func(List)) error {
	defer d.api.forget()
	return d.named(d.watch(ctx, report))
}

func (d *docker) named(err error) error {
	if err != nil {
		return fmt.Errorf("docker:%s: %w", d.api.name, err)
	}
	return nil
}

// negotiate asks for the newest API of the daemon and takes that or ours, whichever is older.
func (d *docker) negotiate(ctx context.Context) error {
	d.version = ""
	res, err := d.api.ask(ctx, "_ping", nil, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return badStatus(res.StatusCode)
	}
	said := res.Header.Get("Api-Version")
	minor, ok := strings.CutPrefix(said, "1.")
	n, err := strconv.ParseUint(minor, 10, 16)
	if !ok || err != nil || n < dockerOldest {
		return fail(ReasonDecode, fmt.Errorf("Api-Version: got %s; want 1.%d or newer", quote(said), dockerOldest))
	}
	d.version = "/v1." + strconv.FormatUint(min(n, dockerNewest), 10)
	return nil
}

// events opens the stream of events. It negotiates anew: what answers now may be another version than before.
func (d *docker) events(ctx context.Context) (stream, error) {
	if err := d.negotiate(ctx); err != nil {
		return nil, err
	}
	res, err := d.api.ask(ctx, d.version+"/events", url.Values{"filters": {dockerEvents}}, nil, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, badStatus(res.StatusCode)
	}
	return &dockerStream{res: res, messages: newMessages(res.Body, maxMessage)}, nil
}

type dockerStream struct {
	res *http.Response
	*messages
}

func (s *dockerStream) next() error {
	var e struct{ Type, Action string }
	if err := s.messages.next(&e); err != nil {
		return err
	}
	if e.Type == "" || e.Action == "" {
		return fail(ReasonDecode, errors.New("got an event without Type and Action"))
	}
	return nil
}

func (s *dockerStream) close() { s.res.Body.Close() }

func (d *docker) containers(ctx context.Context) (List, bool, error) {
	if d.version == "" {
		if err := d.negotiate(ctx); err != nil {
			return List{}, false, err
		}
	}
	b, err := d.api.get(ctx, d.version+"/containers/json", url.Values{"filters": {d.filters}})
	if err != nil {
		return List{}, false, err
	}
	all, err := decodeContainers(b)
	if err != nil {
		return List{}, false, err
	}
	if err := d.askHosts(ctx, all); err != nil {
		return List{}, false, err
	}
	list := d.backends(all)
	return list, true, nil
}
