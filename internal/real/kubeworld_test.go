//go:build real

// Package kubernetes has the tests of discovery against a real kube-apiserver on etcd (make test-real-kubernetes), and what
// records its streams for the tests that need neither.
package kubernetes

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
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	version = "1.36.3"
	token   = "0123456789"
)

// cluster is an etcd and a kube-apiserver, and nothing that controls: what is in it, the test puts there.
type cluster struct {
	t         *testing.T
	folder    string
	etcd, api string // URLs
	server    *exec.Cmd
}

// binaries is the folder of build.sh: AWE4LB_REAL, or else awe4lb-real in the user's cache.
func binaries(t *testing.T) string {
	if dir := os.Getenv("AWE4LB_REAL"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "awe4lb-real")
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, folder: t.TempDir(), etcd: "http://127.0.0.1:" + freePort(t), api: "https://127.0.0.1:" + freePort(t)}
	peers := "http://127.0.0.1:" + freePort(t)
	etcd := c.start("etcd", "--data-dir", filepath.Join(c.folder, "etcd"), "--listen-client-urls", c.etcd, "--advertise-client-urls", c.etcd,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers, "--unsafe-no-fsync")
	t.Cleanup(func() { stop(t, etcd, syscall.SIGKILL) })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c.write("sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	c.write("tokens.csv", []byte(token+",admin,admin,system:masters\n"))
	c.up()
	t.Cleanup(c.down) // before etcd: a server without one takes long to end
	return c
}

func (c *cluster) write(name string, b []byte) string {
	path := filepath.Join(c.folder, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *cluster) start(name string, args ...string) *exec.Cmd {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.folder, filepath.Base(name)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatalf("%v; see build.sh", err)
	}
	return cmd
}

func stop(t *testing.T, cmd *exec.Cmd, sig os.Signal) {
	if err := cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

// up starts the API server and waits until it is ready.
func (c *cluster) up() {
	c.t.Helper()
	path := func(name string) string { return filepath.Join(c.folder, name) }
	c.server = c.start(filepath.Join(binaries(c.t), "kube-apiserver-"+version),
		"--etcd-servers="+c.etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+c.api[strings.LastIndexByte(c.api, ':')+1:],
		"--cert-dir="+path("certs"), "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://awe4lb.test",
		"--service-account-key-file="+path("sa.key"), "--service-account-signing-key-file="+path("sa.key"), "--token-auth-file="+path("tokens.csv"),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none")
	end := time.Now().Add(2 * time.Minute)
	for {
		if status, body := c.try("GET", "/readyz", nil); status == 200 && string(body) == "ok" {
			return
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(path("kube-apiserver-" + version + ".log"))
			c.t.Fatalf("kube-apiserver is not ready after 2 minutes: %s", log[max(0, len(log)-3000):])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// down ends the API server at once, as a crash does: streams end where they are.
func (c *cluster) down() {
	if c.server != nil {
		stop(c.t, c.server, syscall.SIGKILL)
		c.server = nil
	}
}

// compact has etcd forget all versions but the last.
func (c *cluster) compact() {
	c.t.Helper()
	revision := struct {
		Header struct{ Revision json.Number }
	}{}
	call := func(path, body string) []byte {
		res, err := http.Post(c.etcd+path, "application/json", strings.NewReader(body))
		if err != nil {
			c.t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			c.t.Fatalf("%s: %s", path, b)
		}
		return b
	}
	if err := json.Unmarshal(call("/v3/kv/range", `{"key":"AA==","limit":1}`), &revision); err != nil {
		c.t.Fatal(err)
	}
	call("/v3/kv/compaction", fmt.Sprintf(`{"revision":%s,"physical":true}`, revision.Header.Revision))
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the certificate is made at the start

func (c *cluster) try(method, path string, body any) (int, []byte) {
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
	req, err := http.NewRequestWithContext(ctx, method, c.api+path, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", kind)
	res, err := client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer res.Body.Close()
	b, _ = io.ReadAll(res.Body)
	return res.StatusCode, b
}

func (c *cluster) do(method, path string, body any) {
	c.t.Helper()
	if status, b := c.try(method, path, body); status < 200 || status > 299 {
		c.t.Fatalf("%s %s: %d %s", method, path, status, b)
	}
}

type object = map[string]any

// yaml is a body that is sent as it is.
type yaml string

const slicesPath = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

// slice makes an EndpointSlice of the service with a port http; name-v6 is one of IPv6.
func slice(service, name string, endpoints ...object) object {
	family := "IPv4"
	if strings.HasSuffix(name, "-v6") {
		family = "IPv6"
	}
	if endpoints == nil {
		endpoints = []object{}
	}
	return object{"metadata": object{"name": name, "labels": object{"kubernetes.io/service-name": service}}, "addressType": family,
		"ports":     []object{{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}},
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

func (c *cluster) node(name, ip, ready string) {
	c.t.Helper()
	if status, _ := c.try("GET", "/api/v1/nodes/"+name, nil); status == 404 {
		c.do("POST", "/api/v1/nodes", object{"metadata": object{"name": name, "labels": object{"topology.kubernetes.io/zone": "z-" + name}}})
	}
	c.do("PATCH", "/api/v1/nodes/"+name+"/status", object{"status": object{
		"conditions": []object{{"type": "Ready", "status": ready}},
		"addresses":  []object{{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}, {"type": "ExternalIP", "address": "203.0.113." + ip[strings.LastIndexByte(ip, '.')+1:]}},
	}})
}

// ca returns a PEM file by which the server's own certificate is trusted.
func (c *cluster) ca() string {
	return filepath.Join(c.folder, "certs", "apiserver.crt")
}
