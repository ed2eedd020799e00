package discovery

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// kubeAccess knows where the API server is and who we are to it. Everything that it reads from files it reads for each
// request: tokens of service accounts are replaced every hour, authorities and client certificates now and then.
type kubeAccess struct {
	// Set once.
	o      KubernetesOptions
	allow  []netip.Prefix
	most   int64
	folder string // of the service account

	// Guarded by mu, which is held while a plugin runs: another request waits for what it brings.
	mu         sync.Mutex
	credential kubeCredential
}

// serviceAccountFolder is where the cluster puts what a pod needs to talk to it.
const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

func newKubeAccess(o KubernetesOptions) (*kubeAccess, error) {
	a := &kubeAccess{o: o, folder: serviceAccountFolder}
	a.allow = append(slices.Clone(o.Allow), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	switch {
	case o.URL != "" && o.Kubeconfig != "":
		return nil, errors.New("want url or kubeconfig, not both")
	case o.URL == "" && (o.Token.set() || o.TLS != HTTPTLS{}):
		return nil, errors.New("token and tls: want url with them")
	case o.Kubeconfig == "" && o.Context != "":
		return nil, errors.New("context: want kubeconfig with it")
	case o.Kubeconfig != "" && !filepath.IsAbs(o.Kubeconfig):
		return nil, fmt.Errorf("kubeconfig: got %q; want an absolute path", o.Kubeconfig)
	}
	var err error
	if a.most, err = maxBytes(o.MaxBytes); err != nil {
		return nil, err
	}
	if o.Kubeconfig != "" {
		_, err = readKubeconfig(o.Kubeconfig, o.Context)
		return a, err
	}
	_, err = a.target()
	return a, err
}

// name says where, without secrets.
func (a *kubeAccess) name() string {
	switch {
	case a.o.Kubeconfig != "":
		return strings.TrimSuffix(a.o.Kubeconfig+"@"+a.o.Context, "@")
	case a.o.URL != "":
		if u, err := url.Parse(a.o.URL); err == nil {
			return redact(u)
		}
	}
	return "cluster"
}

// target returns what the kind http needs to get there, where there is no kubeconfig.
func (a *kubeAccess) target() (*web, error) {
	if a.o.URL != "" {
		return a.client(HTTPOptions{URL: a.o.URL, Bearer: a.o.Token, TLS: a.o.TLS})
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod; want url or kubeconfig")
	}
	return a.client(HTTPOptions{
		URL:    "https://" + net.JoinHostPort(host, port),
		Bearer: Secret{File: filepath.Join(a.folder, "token")},
		TLS:    HTTPTLS{CA: filepath.Join(a.folder, "ca.crt")},
	})
}

// web returns what the next request is to be made with.
func (a *kubeAccess) web(ctx context.Context) (*web, error) {
	if a.o.Kubeconfig == "" {
		return a.target()
	}
	c, err := readKubeconfig(a.o.Kubeconfig, a.o.Context)
	if err != nil {
		return nil, err
	}
	var credential kubeCredential
	if c.User.Exec != nil {
		if credential, err = a.run(ctx, c); err != nil {
			return nil, err
		}
	}
	conf, err := c.tls(credential)
	if err != nil {
		return nil, err
	}
	w, err := a.client(c.http(credential))
	if err != nil {
		return nil, err
	}
	w.client.Transport.(*http.Transport).TLSClientConfig = conf
	return w, nil
}

// client is newWeb for streams: what is dead is noticed within half a minute, and an answer begins within that time.
func (a *kubeAccess) client(o HTTPOptions) (*web, error) {
	o.Allow, o.MaxBytes = a.allow, a.most
	w, err := newWeb(o)
	if err != nil {
		return nil, err
	}
	if w.url.RawQuery != "" {
		return nil, errors.New("url: has a query; want none")
	}
	t := w.client.Transport.(*http.Transport)
	dialer := &net.Dialer{ControlContext: allowed(o.Allow), KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	t.DialContext = dialer.DialContext
	t.ResponseHeaderTimeout = kubeAnswer
	return w, nil
}

// namespace returns the one to look in when the options name none.
func (a *kubeAccess) namespace() (string, error) {
	switch {
	case a.o.Kubeconfig != "":
		c, err := readKubeconfig(a.o.Kubeconfig, a.o.Context)
		if err != nil {
			return "", err
		}
		return cmp.Or(c.Namespace, "default"), nil
	case a.o.URL != "":
		return "default", nil
	}
	return Secret{File: filepath.Join(a.folder, "namespace")}.read()
}

// run returns the credential that the plugin gave, from before while it is good.
func (a *kubeAccess) run(ctx context.Context, c *kubeContext) (kubeCredential, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.credential.good(time.Now()) {
		var err error
		if a.credential, err = c.User.Exec.run(ctx, c); err != nil {
			return kubeCredential{}, err
		}
	}
	return a.credential, nil
}

// forget has the plugin run for the next request: the server has refused what it gave.
func (a *kubeAccess) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.credential = kubeCredential{}
}

// tls returns how to talk to the cluster of a kubeconfig.
func (c *kubeContext) tls(credential kubeCredential) (*tls.Config, error) {
	conf := &tls.Config{ServerName: c.Cluster.TLSServerName, InsecureSkipVerify: c.Cluster.Insecure}
	ca, err := c.bytes("certificate-authority", c.Cluster.CAData, c.Cluster.CA)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		if conf.RootCAs, err = poolOf(ca); err != nil {
			return nil, fmt.Errorf("certificate-authority: %w", err)
		}
	}
	cert, err := c.bytes("client-certificate", c.User.CertData, c.User.Cert)
	if err != nil {
		return nil, err
	}
	key, err := c.bytes("client-key", c.User.KeyData, c.User.Key)
	if err != nil {
		return nil, err
	}
	if credential.cert != "" {
		cert, key = []byte(credential.cert), []byte(credential.key)
	}
	if cert != nil || key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("client-certificate and client-key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// http returns where the cluster of a kubeconfig is and what to show it beside a certificate.
func (c *kubeContext) http(credential kubeCredential) HTTPOptions {
	o := HTTPOptions{URL: c.Cluster.Server, User: c.User.Username, Password: Secret{Value: c.User.Password}}
	switch {
	case credential.token != "":
		o.Bearer = Secret{Value: credential.token}
	case c.User.TokenFile != "":
		o.Bearer = Secret{File: c.path(c.User.TokenFile)}
	case c.User.Token != "":
		o.Bearer = Secret{Value: c.User.Token}
	}
	return o
}
