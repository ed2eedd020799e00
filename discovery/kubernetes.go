package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// KubernetesOptions say which service of a cluster to follow, and how to get to the API server: by URL, by Kubeconfig, or,
// when both are empty, as a pod does, by its service account.
type KubernetesOptions struct {
	Namespace string // "" = that of the kubeconfig's context or of the pod, or else default; "*" = all, with Selector
	Service   string // its name; or
	Selector  string // labels of services as kubectl writes them, such as app=web,tier in (a,b): all that match are one pool
	Port      string // name or number; "" = the only one there is. A number is the pods' port, with NodePort the service's
	UDP       bool   // ports of UDP, not of TCP
	Family    Family // Both: of a pod or node that has both, the address that comes first counts, for pods IPv4

	NodePort    bool   // not the pods, but the nodes at the service's node port
	NodeAddress string // with NodePort, which address: InternalIP (also "") or ExternalIP

	URL        string // of the API server; Token and TLS go with it
	Token      Secret // a file is read for each request
	TLS        HTTPTLS
	Kubeconfig string         // absolute path; read for each request
	Context    string         // of the kubeconfig; "" = its current-context
	Allow      []netip.Prefix // as in HTTPOptions; this machine is allowed

	Wait     time.Duration // how long one watch lasts before it is asked for again, 1s to 1h; 0 = 5 min
	MaxBytes int64         // of a page of a list and of an event; 0 = 4 MiB. 16 times as much of each kind of object is kept
}

// kube follows objects of the API by list and watch, and makes a list of them whenever one has changed.
type kube struct {
	// Set once.
	o      KubernetesOptions
	port   int // 0 = Port is a name, or empty
	wait   time.Duration
	access *kubeAccess
}

// NewKubernetes returns a source that follows the EndpointSlices of a service. Ready endpoints have the weight of the label
// awe4lb/weight of the service, or 1; those that terminate have 0, unless nothing is ready and they still serve. awe4lb/priority
// is the priority. Zones are those of the endpoints.
//
// With NodePort it follows services of type NodePort and LoadBalancer, their slices, and nodes: every node that is ready, or
// under externalTrafficPolicy Local every one that has endpoints, weighted by their number.
func NewKubernetes(o KubernetesOptions) (Watcher, error) {
	k, err := newKube(o)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return k, nil
}

// What the API takes for names; anything else would be another path.
var (
	kubeName      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	kubeNodeKinds = map[string]string{"": "InternalIP", "InternalIP": "InternalIP", "ExternalIP": "ExternalIP"}
)

func newKube(o KubernetesOptions) (*kube, error) {
	k := &kube{o: o, wait: o.Wait}
	if k.wait == 0 {
		k.wait = 5 * time.Minute
	}
	number, err := strconv.Atoi(o.Port)
	if err == nil {
		k.port = number
	}
	kind, known := kubeNodeKinds[o.NodeAddress]
	k.o.NodeAddress = kind
	switch {
	case (o.Service == "") == (o.Selector == ""):
		return nil, errors.New("want service or selector, and not both")
	case o.Service != "" && !kubeName.MatchString(o.Service):
		return nil, fmt.Errorf("service: got %s; want a name such as web", quote(o.Service))
	case checkText("", o.Selector) != nil:
		return nil, fmt.Errorf("selector: got %s; want one such as app=web", quote(o.Selector))
	case o.Namespace == "*" && o.Selector == "":
		return nil, errors.New("namespace: got *; want a selector with it")
	case o.Namespace != "" && o.Namespace != "*" && !kubeName.MatchString(o.Namespace):
		return nil, fmt.Errorf("namespace: got %s; want a name such as shop", quote(o.Namespace))
	case err == nil && (number < 1 || number >= 1<<16) || err != nil && o.Port != "" && !kubeName.MatchString(o.Port):
		return nil, fmt.Errorf("port: got %s; want a name, or 1 to 65535", quote(o.Port))
	case o.Family > IPv6:
		return nil, fmt.Errorf("family: got %d; want both, ipv4 or ipv6", o.Family)
	case !known || o.NodeAddress != "" && !o.NodePort:
		return nil, fmt.Errorf("node_address: got %s; want InternalIP or ExternalIP, and node_port", quote(o.NodeAddress))
	case k.wait < time.Second || k.wait > time.Hour:
		return nil, fmt.Errorf("wait: got %v; want 1s to 1h", o.Wait)
	}
	k.access, err = newKubeAccess(o)
	return k, err
}

// String has the place, the namespace if one was given, and the service.
func (k *kube) String() string {
	s := "kubernetes:" + k.access.name() + "/" + k.o.Namespace + "/" + k.o.Service + k.o.Selector
	if k.o.Port != "" {
		s += ":" + k.o.Port
	}
	if more := fmt.Sprintf("%t %d %t %s", k.o.UDP, k.o.Family, k.o.NodePort, k.o.NodeAddress); more != "false 0 false InternalIP" {
		s += " …" + digest(more)
	}
	return s
}

// kubeView is what a source follows, and the list that this makes.
type kubeView struct {
	resources []interface {
		load(context.Context) error
		follow(context.Context) error
		loaded() bool
	}
	list func() List
}

// view prepares what to follow. changed is called, by any goroutine, when there is something new.
func (k *kube) view(changed func()) (*kubeView, error) {
	ns, err := k.namespace()
	if err != nil {
		return nil, err
	}
	bySlices := url.Values{"labelSelector": {k.o.Selector}}
	if k.o.Service != "" {
		bySlices.Set("labelSelector", sliceService+"="+k.o.Service)
	}
	slices := newResource[kubeSlice](k, "/apis/discovery.k8s.io/v1", ns, "endpointslices", bySlices, changed)
	v := &kubeView{}
	if !k.o.NodePort {
		v.resources = append(v.resources, slices)
		v.list = func() List { return k.endpoints(slices.all()) }
		return v, nil
	}
	byName := url.Values{"labelSelector": {k.o.Selector}}
	if k.o.Service != "" {
		byName = url.Values{"fieldSelector": {"metadata.name=" + k.o.Service}}
	}
	services := newResource[kubeService](k, "/api/v1", ns, "services", byName, changed)
	nodes := newResource[kubeNode](k, "/api/v1", "", "nodes", url.Values{}, changed)
	v.resources = append(v.resources, services, nodes, slices)
	v.list = func() List { return k.nodePorts(services.all(), nodes.all(), slices.all()) }
	return v, nil
}

// namespace returns the one to look in, "" = all.
func (k *kube) namespace() (string, error) {
	switch k.o.Namespace {
	case "*":
		return "", nil
	case "":
		ns, err := k.access.namespace()
		if err == nil && !kubeName.MatchString(ns) {
			err = fmt.Errorf("namespace: got %s; want a name such as shop", quote(ns))
		}
		return ns, err
	}
	return k.o.Namespace, nil
}

// Fetch returns what there is now.
func (k *kube) Fetch(ctx context.Context) (List, error) {
	v, err := k.view(func() {})
	if err != nil {
		return List{}, fmt.Errorf("%s: %w", k, err)
	}
	for _, r := range v.resources {
		if err := r.load(ctx); err != nil {
			return List{}, fmt.Errorf("%s: %w", k, err)
		}
	}
	return v.list(), nil
}

// Watch reports nothing before everything that it follows has been listed once.
func (k *kube) Watch(parent context.Context, report func(List)) error {
	ctx, cancel := context.WithCancelCause(parent)
	dirty := make(chan struct{}, 1)
	v, err := k.view(func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	})
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel(nil)
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	for _, r := range v.resources {
		followers.Go(func() { cancel(r.follow(ctx)) })
	}
	for {
		select {
		case <-ctx.Done():
			if parent.Err() != nil {
				return parent.Err()
			}
			return fmt.Errorf("%s: %w", k, context.Cause(ctx))
		case <-dirty:
			if v.loaded() {
				report(v.list())
			}
		}
	}
}

func (v *kubeView) loaded() bool {
	for _, r := range v.resources {
		if !r.loaded() {
			return false
		}
	}
	return true
}

// kubeMeta is what we read of any object.
type kubeMeta struct {
	Name, Namespace, ResourceVersion string
	DeletionTimestamp                *string
	Labels                           map[string]string
}

// Labels of services, of the slices made of them, and of nodes.
const (
	labelWeight   = "awe4lb/weight"
	labelPriority = "awe4lb/priority"
)

// number reads a label as a number up to most; what is none is told in list and counts as not there.
func (m *kubeMeta) number(list *List, label string, otherwise, most int) int {
	s, ok := m.Labels[label]
	if !ok {
		return otherwise
	}
	n, err := parseNumber(label, s)
	if err == nil && n > most {
		err = fmt.Errorf("%s: got %d; want 0 to %d", label, n, most)
	}
	if err != nil {
		list.remark(fmt.Errorf("%s: %w", quote(m.Name), err))
		return otherwise
	}
	return n
}

// remark notes what is wrong with something that is of use all the same.
func (l *List) remark(err error) {
	if l.Why == "" {
		l.Why = clip(err.Error())
	}
}

// wanted reports whether a port is the one of the options, out of so many of its protocol. The API's default protocol is TCP.
func (k *kube) wanted(name string, number int, of int) bool {
	switch {
	case k.port != 0:
		return number == k.port
	case k.o.Port != "":
		return name == k.o.Port
	}
	return of == 1
}

func (k *kube) protocol() string {
	if k.o.UDP {
		return "UDP"
	}
	return "TCP"
}

func (f Family) has(ip netip.Addr) bool {
	return f == Both || (f == IPv4) == ip.Is4()
}

// kubePorts says which there are, for errors.
func kubePorts(ports []kubePort) string {
	var all []string
	for _, p := range ports {
		all = append(all, strings.TrimPrefix(p.Name+":"+strconv.Itoa(p.number()), ":"))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
