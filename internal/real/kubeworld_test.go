//go:build real

package real

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

const (
	kubeVersion = "1.36.3"
	kubeToken   = "0123456789"
)

// kubeWorld is a kube-apiserver on etcd, and nothing that controls: what is in it, the test puts there. A backend is a pod,
// with an EndpointSlice of its own, so that each can have a port of its own.
type kubeWorld struct {
	t         *testing.T
	folder    string
	etcd, api string // URLs
	store     *process
	server    *process
	options   discovery.KubernetesOptions // for the source, beside where the server is
	replaced  map[int]int                 // how often each pod was
	outside
}

func newKube(t *testing.T) *kubeWorld {
	t.Helper()
	w := &kubeWorld{t: t, folder: t.TempDir(), etcd: "http://127.0.0.1:" + freePort(t), api: "https://127.0.0.1:" + freePort(t),
		options: discovery.KubernetesOptions{Service: "web", Port: "http", Wait: 2 * time.Second}, replaced: map[int]int{}}
	w.host = reachable // loopback addresses are refused in slices
	peers := "http://127.0.0.1:" + freePort(t)
	w.store = &process{t: t, log: filepath.Join(w.folder, "etcd.log"), argv: []string{"etcd", "--data-dir", filepath.Join(w.folder, "etcd"),
		"--listen-client-urls", w.etcd, "--advertise-client-urls", w.etcd, "--listen-peer-urls", peers,
		"--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers, "--unsafe-no-fsync"}}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sa := w.write("sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	tokens := w.write("tokens.csv", []byte(kubeToken+",admin,admin,system:masters\n"))
	w.server = &process{t: t, log: filepath.Join(w.folder, "log"), argv: []string{binary(t, "kube-apiserver-"+kubeVersion),
		"--etcd-servers=" + w.etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + w.api[strings.LastIndexByte(w.api, ':')+1:],
		"--cert-dir=" + filepath.Join(w.folder, "certs"), "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://awe4lb.test",
		"--service-account-key-file=" + sa, "--service-account-signing-key-file=" + sa, "--token-auth-file=" + tokens,
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"}}
	t.Cleanup(func() {
		w.server.stop(syscall.SIGKILL) // before etcd: one without it takes long to end
		w.store.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Log(w.server.tail())
		}
	})
	w.store.start()
	w.start()
	return w
}

func (w *kubeWorld) write(name string, b []byte) string {
	w.t.Helper()
	path := filepath.Join(w.folder, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *kubeWorld) start() {
	w.t.Helper()
	w.server.start()
	until(w.t, "kube-apiserver is ready", 2*time.Minute, func() bool {
		status, body := w.try("GET", "/readyz", nil)
		return status == http.StatusOK && string(body) == "ok"
	})
}

// stop ends the API server; etcd goes on.
func (w *kubeWorld) stop(s syscall.Signal) {
	w.t.Helper()
	w.server.stop(s)
}

// put makes or replaces the slice of pod n, in a state as endpoint knows them.
func (w *kubeWorld) put(n int, state string) (address string) {
	w.t.Helper()
	address = w.at(n + 100*w.replaced[n])
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	name := fmt.Sprint("pod-", n)
	body := sliceAt(a.Port, "web", name, endpoint(a.IP.String(), state))
	if status, _ := w.try("GET", slicesPath+"/"+name, nil); status == http.StatusNotFound {
		w.do("POST", slicesPath, body)
	} else {
		w.do("PUT", slicesPath+"/"+name, body)
	}
	return address
}

// add adds a pod, which has no weight of its own.
func (w *kubeWorld) add(n, _ int) string {
	w.t.Helper()
	return entry(w.put(n, "ready"), 1)
}

// change replaces a pod by one at another address.
func (w *kubeWorld) change(n, weight int) string {
	w.t.Helper()
	w.replaced[n]++
	return w.add(n, weight)
}

func (w *kubeWorld) remove(n int) {
	w.t.Helper()
	w.do("DELETE", slicesPath+"/pod-"+fmt.Sprint(n), nil)
}

func (w *kubeWorld) source() discovery.Source {
	w.t.Helper()
	o := w.options
	o.URL, o.Token, o.TLS.CA = w.api, discovery.Secret{Value: kubeToken}, w.ca()
	s, err := discovery.NewKubernetes(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *kubeWorld) table() string {
	return fmt.Sprintf("kind = \"kubernetes\"\nurl = %q\ntoken = %q\nca = %q\nservice = %q\nport = %q\nwait = %q\n",
		w.api, kubeToken, w.ca(), w.options.Service, w.options.Port, w.options.Wait)
}

// compact has etcd forget all versions but the last.
func (w *kubeWorld) compact() {
	w.t.Helper()
	revision := struct {
		Header struct{ Revision json.Number }
	}{}
	call := func(path, body string) []byte {
		res, err := http.Post(w.etcd+path, "application/json", strings.NewReader(body))
		if err != nil {
			w.t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			w.t.Fatalf("%s: %s", path, b)
		}
		return b
	}
	if err := json.Unmarshal(call("/v3/kv/range", `{"key":"AA==","limit":1}`), &revision); err != nil {
		w.t.Fatal(err)
	}
	call("/v3/kv/compaction", fmt.Sprintf(`{"revision":%s,"physical":true}`, revision.Header.Revision))
}

var kubeClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the certificate is made at the start

func (w *kubeWorld) try(method, path string, body any) (int, []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b, _ := json.Marshal(body)
	kind := "application/json"
	switch text, ok := body.(yaml); {
	case ok:
		b, kind = []byte(text), "application/yaml"
	case method == "PATCH":
		kind = "application/merge-patch+json"
	}
	req, err := http.NewRequestWithContext(ctx, method, w.api+path, bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+kubeToken)
	req.Header.Set("Content-Type", kind)
	res, err := kubeClient.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer res.Body.Close()
	b, _ = io.ReadAll(res.Body)
	return res.StatusCode, b
}

func (w *kubeWorld) do(method, path string, body any) {
	w.t.Helper()
	if status, b := w.try(method, path, body); status < 200 || status > 299 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, b)
	}
}

type object = map[string]any

// yaml is a body that is sent as it is.
type yaml string

const slicesPath = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

// slice makes an EndpointSlice of the service with a port http, 8080; name-v6 is one of IPv6.
func slice(service, name string, endpoints ...object) object {
	return sliceAt(8080, service, name, endpoints...)
}

func sliceAt(port int, service, name string, endpoints ...object) object {
	family := "IPv4"
	if strings.HasSuffix(name, "-v6") {
		family = "IPv6"
	}
	if endpoints == nil {
		endpoints = []object{}
	}
	return object{"metadata": object{"name": name, "labels": object{"kubernetes.io/service-name": service}}, "addressType": family,
		"ports":     []object{{"name": "http", "port": port}, {"name": "metrics", "port": 9090}},
		"endpoints": endpoints}
}

// endpoint makes one in zone a on node n1. State is ready, unknown, unready, draining or leaving.
func endpoint(ip, state string) object {
	conditions := map[string]object{
		"ready":    {"ready": true, "serving": true, "terminating": false},
		"unknown":  {},
		"unready":  {"ready": false, "serving": false, "terminating": false},
		"draining": {"ready": false, "serving": true, "terminating": true},
		"leaving":  {"ready": false, "serving": false, "terminating": true},
	}[state]
	return object{"addresses": []string{ip}, "conditions": conditions, "zone": "a", "nodeName": "n1",
		"targetRef": object{"kind": "Pod", "namespace": "default", "name": "pod-" + strings.NewReplacer(".", "-", ":", "-").Replace(ip)}}
}

func (w *kubeWorld) node(name, ip, ready string) {
	w.t.Helper()
	if status, _ := w.try("GET", "/api/v1/nodes/"+name, nil); status == 404 {
		w.do("POST", "/api/v1/nodes", object{"metadata": object{"name": name, "labels": object{"topology.kubernetes.io/zone": "z-" + name}}})
	}
	w.do("PATCH", "/api/v1/nodes/"+name+"/status", object{"status": object{
		"conditions": []object{{"type": "Ready", "status": ready}},
		"addresses":  []object{{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}, {"type": "ExternalIP", "address": "203.0.113." + ip[strings.LastIndexByte(ip, '.')+1:]}},
	}})
}

// ca returns a PEM file by which the server's own certificate is trusted.
func (w *kubeWorld) ca() string {
	return filepath.Join(w.folder, "certs", "apiserver.crt")
}
