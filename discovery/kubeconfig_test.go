package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

const emptyList = `{"metadata":{"resourceVersion":"7"},"items":[` + someSlice + `]}`

// guarded is an API server that wants to know who asks.
type guarded struct {
	*httptest.Server
	mu    sync.Mutex
	want  string   // the Authorization header
	certs bool     // a client certificate too
	asked []string // paths with queries
}

func serveGuarded(t *testing.T, want string, conf *tls.Config) *guarded {
	g := &guarded{want: want, certs: conf != nil && conf.ClientCAs != nil}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asked = append(g.asked, r.URL.RequestURI())
		if r.Header.Get("Authorization") != g.want || g.certs && len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(401)
			return
		}
		_, _ = w.Write([]byte(emptyList))
	}))
	g.TLS = conf
	g.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail on purpose
	g.StartTLS()
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) set(want string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.want = want
}

// path returns that of the last request.
func (g *guarded) path() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	path, _, _ := strings.Cut(g.asked[len(g.asked)-1], "?")
	return path
}

func (g *guarded) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw})
}

// kubeconfigOf writes a kubeconfig with two contexts, of which two, the current one, is of the cluster and the user.
func kubeconfigOf(t *testing.T, cluster, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, fmt.Sprintf(`
apiVersion: v1
kind: Config
preferences: {}
current-context: two
clusters:
- {name: one, cluster: {server: "https://192.0.2.1"}}
- name: two
  cluster: {%s}
contexts:
- {name: one, context: {cluster: one, user: ""}}
- {name: two, context: {cluster: two, user: me, namespace: shop}}
users:
- name: me
  user:
%s
`, cluster, user))
	return path
}

func fromKubeconfig(t *testing.T, path string) Source {
	t.Helper()
	s, err := NewKubernetes(KubernetesOptions{Service: "web", Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const oneBackend = "10.0.0.1:80 1/0/0"

func TestKubeconfig(t *testing.T) {
	lbtest.CheckLeaks(t)
	g := serveGuarded(t, "Bearer abc", nil)
	ca := lbtest.Files(t, "ca.pem", g.pem())
	data := base64.StdEncoding.EncodeToString(g.pem())
	token := lbtest.Files(t, "token", []byte("abc\n"))
	for _, e := range []struct{ cluster, user string }{
		{"server: %s, certificate-authority: " + ca, "    token: abc"},
		{"server: %s, certificate-authority-data: " + data, "    {token: old, tokenFile: " + token + "}"},
		{"server: %s, insecure-skip-tls-verify: true", "    token: abc"},
		{"server: %s, tls-server-name: example.com, certificate-authority: " + ca, "    token: abc"},
	} {
		s := fromKubeconfig(t, kubeconfigOf(t, fmt.Sprintf(e.cluster, g.URL+"/"), e.user))
		fetch(t, s, oneBackend)
		if last := g.path(); last != "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" {
			t.Error(last)
		}
		if strings.Contains(s.String(), "abc") {
			t.Error(s)
		}
	}
	// Who is not who the kubeconfig says is not believed.
	fetchFails(t, fromKubeconfig(t, kubeconfigOf(t, "server: "+g.URL, "    token: abc")), ReasonOther, "certificate")
	fetchFails(t, fromKubeconfig(t, kubeconfigOf(t, "server: "+g.URL+", tls-server-name: other.example, certificate-authority: "+ca, "    token: abc")), ReasonOther, "other.example")
	fetchFails(t, fromKubeconfig(t, kubeconfigOf(t, "server: "+g.URL+", certificate-authority: "+ca, "    token: abd")), ReasonStatus, "status 401")

	// Basic authentication, and a path before that of the API, as managers of clusters have it.
	g.set("Basic bWU6YWJj")
	fetch(t, fromKubeconfig(t, kubeconfigOf(t, "server: "+g.URL+"/k8s/clusters/c1, certificate-authority: "+ca, "    {username: me, password: abc}")), oneBackend)
	if last := g.path(); last != "/k8s/clusters/c1/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" {
		t.Error(last)
	}
}

// TestKubeconfigIsReadAgain: a file that is replaced is used for the next request, with relative paths.
func TestKubeconfigIsReadAgain(t *testing.T) {
	g := serveGuarded(t, "Bearer abc", nil)
	path := kubeconfigOf(t, "server: "+g.URL+", certificate-authority: ca.pem", "    {tokenFile: token}")
	write(t, filepath.Join(filepath.Dir(path), "ca.pem"), string(g.pem()))
	write(t, filepath.Join(filepath.Dir(path), "token"), "abc")
	s := fromKubeconfig(t, path)
	fetch(t, s, oneBackend)
	g.set("Bearer def")
	fetchFails(t, s, ReasonStatus, "401")
	write(t, filepath.Join(filepath.Dir(path), "token"), "def")
	fetch(t, s, oneBackend)
	write(t, path, "}")
	fetchFails(t, s, ReasonDecode, "config: yaml")
}

func TestKubeconfigClientCertificates(t *testing.T) {
	ca := lbtest.NewCA(t)
	root, _ := ca.Authority()
	pool := x509.NewCertPool()
	pool.AddCert(root)
	g := serveGuarded(t, "", &tls.Config{ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven})
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"me"}})
	cluster := "server: " + g.URL + ", certificate-authority: " + lbtest.Files(t, "ca.pem", g.pem())
	fetch(t, fromKubeconfig(t, kubeconfigOf(t, cluster, fmt.Sprintf("    {client-certificate: %s, client-key: %s}", lbtest.Files(t, "c.pem", cert), lbtest.Files(t, "k.pem", key)))), oneBackend)
	encode := base64.StdEncoding.EncodeToString
	fetch(t, fromKubeconfig(t, kubeconfigOf(t, cluster, fmt.Sprintf("    {client-certificate-data: %s, client-key-data: %s}", encode(cert), encode(key)))), oneBackend)
	fetchFails(t, fromKubeconfig(t, kubeconfigOf(t, cluster, "    {}")), ReasonStatus, "401")
	fetchFails(t, fromKubeconfig(t, kubeconfigOf(t, cluster, "    {client-certificate-data: "+encode(cert)+"}")), ReasonOther, "client-key")

	// By a plugin.
	printed := fmt.Sprintf(`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"clientCertificateData":%q,"clientKeyData":%q}}`, cert, key)
	fetch(t, fromKubeconfig(t, kubeconfigOf(t, cluster, plugin(t, "cat "+lbtest.Files(t, "out", []byte(printed)), ""))), oneBackend)
}

// plugin is a user who is whom a script says.
func plugin(t *testing.T, script, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	write(t, path, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	fence()
	return "    exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: IfAvailable, command: " + path + more + "}"
}

func printToken(token string, until time.Time) string {
	return fmt.Sprintf(`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":"%s"}}'`, token, until.Format(time.RFC3339))
}

func TestKubeconfigExec(t *testing.T) {
	lbtest.CheckLeaks(t)
	t.Setenv("AWE4LB_TEST_SECRET", "x")
	g := serveGuarded(t, "Bearer abc", nil)
	cluster := "server: " + g.URL + ", certificate-authority-data: " + base64.StdEncoding.EncodeToString(g.pem())
	calls := filepath.Join(t.TempDir(), "calls")
	count := func() int {
		b, _ := os.ReadFile(calls)
		return strings.Count(string(b), "\n")
	}
	next := filepath.Join(t.TempDir(), "next")
	say := func(token string, until time.Time) { write(t, next, printToken(token, until)) }

	// What it is told, and what it is not; and that it runs when what it said is over or refused, and only then.
	user := plugin(t, `echo "$1 $A $AWE4LB_TEST_SECRET $KUBERNETES_EXEC_INFO" >> `+calls+`; . `+next, `, args: ["a b"], env: [{name: A, value: "b c"}], provideClusterInfo: true`)
	s := fromKubeconfig(t, kubeconfigOf(t, cluster, user))
	if count() != 0 {
		t.Error("ran before it was needed")
	}
	say("abc", time.Now().Add(time.Hour))
	fetch(t, s, oneBackend)
	fetch(t, s, oneBackend)
	b, _ := os.ReadFile(calls)
	if got := string(b); !strings.HasPrefix(got, "a b b c  {") || !strings.Contains(got, `"interactive":false`) || !strings.Contains(got, `"server":"`+g.URL) || count() != 1 {
		t.Errorf("%d times %s", count(), got)
	}
	g.set("Bearer def")
	say("def", time.Now().Add(kubeExecMargin/2))
	fetchFails(t, s, ReasonStatus, "401")
	fetchFails(t, s, ReasonDecode, "printed what is over")
	say("def", time.Now().Add(kubeExecMargin+1500*time.Millisecond))
	fetch(t, s, oneBackend)
	ran := count()
	lbtest.Eventually(t, "it runs again", func() bool { fetch(t, s, oneBackend); say("def", time.Now().Add(time.Hour)); return count() > ran })

	for _, e := range []struct{ script, reason, want string }{
		{"echo s3cret; exit 3", ReasonExit, "exit status 3"},
		{"echo s3cret", ReasonDecode, "want an ExecCredential"},
		{`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{}}'`, ReasonDecode, "neither a token nor a certificate"},
		{`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"clientCertificateData":"s3cret"}}'`, ReasonDecode, "a certificate and its key"},
		{`printf %s '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"a\nb"}}'`, ReasonDecode, "one line"},
		{"yes s3cret", ReasonTooLarge, "more than"},
	} {
		s := fromKubeconfig(t, kubeconfigOf(t, cluster, plugin(t, e.script, "")))
		fetchFails(t, s, e.reason, e.want)
		if _, err := s.Fetch(t.Context()); strings.Contains(err.Error(), "s3cret") {
			t.Error(err)
		}
	}

	// One that does not end is ended.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := fromKubeconfig(t, kubeconfigOf(t, cluster, plugin(t, "sleep 1000", ""))).Fetch(ctx); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}

func TestKubeconfigIsChecked(t *testing.T) {
	for _, e := range []struct{ cluster, user, want string }{
		{"server: https://a", "    s3cretword", "cannot unmarshal !!str a value into"},
		{"server: https://a", "    {token: a, token: b}", `mapping key "token" already defined`},
		{"server: ", "    token: s3cret", "no server"},
		{"server: https://a, proxy-url: http://s3cret@b", "    token: a", "proxies are not supported"},
		{"server: https://a, insecure-skip-tls-verify: true, certificate-authority: /a", "    token: a", "not both"},
		{"server: https://a", "    auth-provider: {name: gcp}", "want exec"},
		{"server: https://a", "    {token: s3cret, as: root}", "impersonation is not supported"},
		{"server: https://a", "    {username: me, token: s3cret}", "not more than one"},
		{"server: https://a", "    {password: s3cret}", "want a username"},
		{"server: https://a", `    {token: "s3cret\n"}`, "want one line"},
		{"server: https://a", "    exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: a}", "want client.authentication.k8s.io/v1"},
		{"server: https://a", "    exec: {apiVersion: client.authentication.k8s.io/v1}", "command: got nothing"},
		{"server: https://a", "    exec: {apiVersion: client.authentication.k8s.io/v1, command: a, interactiveMode: Always}", "nobody is there"},
		{"server: https://a", "    exec: {apiVersion: client.authentication.k8s.io/v1, command: a, env: [{name: A=B}]}", "want a name and a value"},
	} {
		path := kubeconfigOf(t, e.cluster, e.user)
		_, err := NewKubernetes(KubernetesOptions{Service: "web", Kubeconfig: path})
		if err == nil || !strings.Contains(err.Error(), e.want) || !strings.HasPrefix(err.Error(), "kubernetes: "+path+": ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s %s: %v; want %s", e.cluster, e.user, err, e.want)
		}
	}
	path := kubeconfigOf(t, "server: https://a", "    token: a")
	for name, want := range map[string]string{"three": `has no context "three"`, "one": ""} {
		_, err := NewKubernetes(KubernetesOptions{Service: "web", Kubeconfig: path, Context: name})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Aliases that would make a billion of a few lines.
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	bomb.WriteString("users: *a12\n")
	if _, err := parseKubeconfig([]byte(bomb.String()), ""); err == nil {
		t.Error("reads a bomb")
	}
}

// TestInCluster is a pod: tokens and authorities are those of the files as they are now.
func TestInCluster(t *testing.T) {
	lbtest.CheckLeaks(t)
	g := serveGuarded(t, "Bearer abc", nil)
	u, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(u.Host)
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	folder := t.TempDir()
	put := func(name, text string) { write(t, filepath.Join(folder, name), text) }
	k, err := newKube(KubernetesOptions{Service: "web", URL: g.URL})
	if err != nil {
		t.Fatal(err)
	}
	k.access.o.URL, k.access.folder = "", folder
	if k.String() != "kubernetes:cluster//web" {
		t.Error(k)
	}
	fetchFails(t, k, ReasonOther, "namespace: no such file")
	put("namespace", "shop\n")
	put("token", "abc")
	fetchFails(t, k, ReasonOther, "ca.crt: no such file")
	put("ca.crt", string(g.pem()))
	fetch(t, k, oneBackend)
	g.set("Bearer def")
	fetchFails(t, k, ReasonStatus, "401")
	put("token", "def")
	fetch(t, k, oneBackend)
	if last := g.path(); last != "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" {
		t.Error(last)
	}
	other, _ := lbtest.NewCA(t).Authority()
	put("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Raw})))
	fetchFails(t, k, ReasonOther, "certificate")
	put("namespace", "../../secrets")
	fetchFails(t, k, ReasonOther, "want a name such as shop")
}

func TestKubernetesByURL(t *testing.T) {
	lbtest.CheckLeaks(t)
	g := serveGuarded(t, "Bearer abc", nil)
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "abc\n")
	o := KubernetesOptions{URL: g.URL, Token: Secret{File: token}, TLS: HTTPTLS{CA: lbtest.Files(t, "ca.pem", g.pem())}, Namespace: "*", Selector: "app in (a,b)"}
	s, err := NewKubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, s, oneBackend)
	if got := g.asked[0]; got != "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=app+in+%28a%2Cb%29&limit=50" {
		t.Error(got)
	}
	o.URL = "https://169.254.169.254"
	if s, err = NewKubernetes(o); err != nil {
		t.Fatal(err)
	}
	fetchFails(t, s, ReasonRefused, "as those of metadata services are")
}

func FuzzKubeconfig(f *testing.F) {
	f.Add([]byte("current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]\nclusters: [{name: b, cluster: {server: \"https://d\"}}]\nusers: [{name: c, user: {token: e, client-key-data: Zg==}}]\n"))
	f.Add([]byte("users: [{name: c, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: a, args: [b], env: [{name: A, value: b}]}}}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseKubeconfig(b, "")
		if err != nil {
			if ReasonOf(err) != ReasonDecode {
				t.Error(err)
			}
			return
		}
		c.folder = "/nonexistent"
		_, _ = c.tls(kubeCredential{})
		_, _ = newWeb(c.http(kubeCredential{}))
	})
}

func FuzzExecCredential(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"a","expirationTimestamp":"2026-11-25T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCredential(b)
		if err == nil && (c.token == "" && c.cert == "" || strings.ContainsAny(c.token, "\r\n")) {
			t.Errorf("%+v", c)
		}
	})
}
