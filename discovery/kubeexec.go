package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kubeExec is a plugin of a kubeconfig: a program that prints who we are,
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins.
type kubeExec struct {
	APIVersion         string `yaml:"apiVersion"`
	Command            string
	Args               []string
	Env                []struct{ Name, Value string }
	ProvideClusterInfo bool   `yaml:"provideClusterInfo"`
	InteractiveMode    string `yaml:"interactiveMode"`
}

// kubeCredential is what a plugin has printed.
type kubeCredential struct {
	token, cert, key string
	until            time.Time // zero = as long as the server takes it
}

const (
	kubeExecTime   = 30 * time.Second // for a plugin to end
	kubeExecMargin = 10 * time.Second // a credential that ends within it is not used
	kubeExecBytes  = 1 << 20
)

// Versions of the API that plugins speak; they are the same to us.
var kubeExecVersions = map[string]bool{"client.authentication.k8s.io/v1": true, "client.authentication.k8s.io/v1beta1": true}

func (c kubeCredential) good(now time.Time) bool {
	return (c.token != "" || c.cert != "") && (c.until.IsZero() || now.Add(kubeExecMargin).Before(c.until))
}

func (e *kubeExec) check() error {
	switch {
	case !kubeExecVersions[e.APIVersion]:
		return fmt.Errorf("exec: apiVersion: got %s; want client.authentication.k8s.io/v1", quote(e.APIVersion))
	case e.Command == "":
		return errors.New("exec: command: got nothing")
	case e.InteractiveMode == "Always":
		return errors.New("exec: interactiveMode: got Always; nobody is there to be asked")
	case strings.ContainsRune(e.Command+strings.Join(e.Args, ""), 0):
		return errors.New("exec: want no zero bytes")
	}
	for _, v := range e.Env {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.ContainsRune(v.Value, 0) {
			return errors.New("exec: env: want a name and a value")
		}
	}
	return nil
}

// run runs the plugin as the kind exec runs programs: no shell, in a group of its own that is killed. Of our environment it
// gets PATH, by which a command without a slash is found, and HOME, where plugins keep things.
func (e *kubeExec) run(parent context.Context, c *kubeContext) (kubeCredential, error) {
	ctx, cancel := context.WithTimeoutCause(parent, kubeExecTime, fail(ReasonTimeout, fmt.Errorf("has not ended within %v", kubeExecTime)))
	defer cancel()
	path, err := e.find(c)
	if err != nil {
		return kubeCredential{}, err
	}
	info, err := e.info(c)
	if err != nil {
		return kubeCredential{}, err
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "KUBERNETES_EXEC_INFO=" + string(info)}
	for _, v := range e.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	p := &program{o: ExecOptions{Argv: append([]string{path}, e.Args...), Env: env, Dir: "/"}, most: kubeExecBytes}
	b, err := p.output(ctx)
	if err != nil {
		return kubeCredential{}, err
	}
	got, err := decodeCredential(b)
	if err == nil && !got.good(time.Now()) {
		err = errors.New("has printed what is over")
	}
	if err != nil {
		return kubeCredential{}, fail(ReasonDecode, fmt.Errorf("%s: %w", p, err))
	}
	return got, nil
}

func (e *kubeExec) find(c *kubeContext) (string, error) {
	if name := e.program(c); filepath.IsAbs(name) {
		return name, nil
	}
	return exec.LookPath(e.Command)
}

// program returns the path of the command, or its name where it is to be looked for.
func (e *kubeExec) program(c *kubeContext) string {
	if strings.ContainsRune(e.Command, filepath.Separator) {
		return c.path(e.Command)
	}
	return e.Command
}

// info is what the plugin is told.
func (e *kubeExec) info(c *kubeContext) ([]byte, error) {
	spec := map[string]any{"interactive": false}
	if e.ProvideClusterInfo {
		ca, err := c.bytes("certificate-authority", c.Cluster.CAData, c.Cluster.CA)
		if err != nil {
			return nil, err
		}
		spec["cluster"] = map[string]any{"server": c.Cluster.Server, "tls-server-name": c.Cluster.TLSServerName,
			"insecure-skip-tls-verify": c.Cluster.Insecure, "certificate-authority-data": ca}
	}
	return json.Marshal(map[string]any{"apiVersion": e.APIVersion, "kind": "ExecCredential", "spec": spec})
}

// decodeCredential reads an ExecCredential. Its errors quote nothing: it is all secret.
func decodeCredential(b []byte) (kubeCredential, error) {
	var got struct {
		APIVersion, Kind string
		Status           struct {
			ExpirationTimestamp                         *time.Time
			Token, ClientCertificateData, ClientKeyData string
		}
	}
	switch err := json.Unmarshal(b, &got); {
	case err != nil || got.Kind != "ExecCredential" || !kubeExecVersions[got.APIVersion]:
		return kubeCredential{}, errors.New("want an ExecCredential of client.authentication.k8s.io/v1 as JSON")
	case got.Status.Token == "" && got.Status.ClientCertificateData == "":
		return kubeCredential{}, errors.New("has printed neither a token nor a certificate")
	case (got.Status.ClientCertificateData == "") != (got.Status.ClientKeyData == ""):
		return kubeCredential{}, errors.New("want a certificate and its key, or neither")
	case strings.ContainsAny(got.Status.Token, "\r\n\x00"):
		return kubeCredential{}, errors.New("want a token of one line")
	}
	c := kubeCredential{token: got.Status.Token, cert: got.Status.ClientCertificateData, key: got.Status.ClientKeyData}
	if t := got.Status.ExpirationTimestamp; t != nil {
		c.until = *t
	}
	return c, nil
}
