package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"awe4lb/internal/privilege"

	"go.yaml.in/yaml/v3"
)

// kubeconfig is what we read of such a file, https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/.
type kubeconfig struct {
	CurrentContext string `yaml:"current-context"`
	Clusters       []namedOf[kubeCluster]
	Users          []namedOf[kubeUser]
	Contexts       []namedOf[kubeContextRef]
}

// namedOf is an entry of one of its lists, whose value is under a key of its own kind.
type namedOf[T any] struct {
	Name    string
	Cluster *T
	User    *T
	Context *T
}

type kubeContextRef struct{ Cluster, User, Namespace string }

type kubeCluster struct {
	Server        string
	CA            string `yaml:"certificate-authority"`
	CAData        string `yaml:"certificate-authority-data"`
	TLSServerName string `yaml:"tls-server-name"`
	Insecure      bool   `yaml:"insecure-skip-tls-verify"`
	ProxyURL      string `yaml:"proxy-url"`
}

type kubeUser struct {
	Cert         string `yaml:"client-certificate"`
	CertData     string `yaml:"client-certificate-data"`
	Key          string `yaml:"client-key"`
	KeyData      string `yaml:"client-key-data"`
	Token        string
	TokenFile    string `yaml:"tokenFile"`
	Username     string
	Password     string
	Exec         *kubeExec
	As           string
	AsUID        string              `yaml:"as-uid"`
	AsGroups     []string            `yaml:"as-groups"`
	AsExtra      map[string][]string `yaml:"as-user-extra"`
	AuthProvider any                 `yaml:"auth-provider"`
}

// kubeContext is a context of a kubeconfig with what it refers to.
type kubeContext struct {
	Cluster   kubeCluster
	User      kubeUser
	Namespace string
	folder    string // paths are relative to it
}

const maxKubeconfig = 1 << 20 // bytes

// readKubeconfig reads one context of a file, "" = the current one. Errors quote nothing that may be secret.
func readKubeconfig(path, context string) (*kubeContext, error) {
	b, err := readFile(path, maxKubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := parseKubeconfig(b, context)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.folder = filepath.Dir(path)
	return c, nil
}

// yamlValue is what an error of yaml quotes of the file.
var yamlValue = regexp.MustCompile("(?s)`.*?`")

func parseKubeconfig(b []byte, context string) (*kubeContext, error) {
	var all kubeconfig
	if err := yaml.Unmarshal(b, &all); err != nil {
		return nil, fail(ReasonDecode, errors.New(clip(yamlValue.ReplaceAllLiteralString(err.Error(), "a value"))))
	}
	c, err := all.context(context)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return nil, fail(ReasonDecode, err)
	}
	return c, nil
}

// context puts a context together.
func (all *kubeconfig) context(name string) (*kubeContext, error) {
	if name == "" {
		name = all.CurrentContext
	}
	i := slices.IndexFunc(all.Contexts, func(n namedOf[kubeContextRef]) bool { return n.Name == name && n.Context != nil })
	if i < 0 {
		return nil, fmt.Errorf("has no context %s", quote(name))
	}
	ref := all.Contexts[i].Context
	c := &kubeContext{Namespace: ref.Namespace}
	i = slices.IndexFunc(all.Clusters, func(n namedOf[kubeCluster]) bool { return n.Name == ref.Cluster && n.Cluster != nil })
	if i < 0 {
		return nil, fmt.Errorf("has no cluster %s", quote(ref.Cluster))
	}
	c.Cluster = *all.Clusters[i].Cluster
	if ref.User == "" {
		return c, nil
	}
	i = slices.IndexFunc(all.Users, func(n namedOf[kubeUser]) bool { return n.Name == ref.User && n.User != nil })
	if i < 0 {
		return nil, fmt.Errorf("has no user %s", quote(ref.User))
	}
	c.User = *all.Users[i].User
	return c, nil
}

// check refuses what we would not do as it says.
func (c *kubeContext) check() error {
	u := &c.User
	switch {
	case c.Cluster.Server == "":
		return errors.New("the cluster has no server")
	case c.Cluster.ProxyURL != "":
		return errors.New("proxy-url: proxies are not supported")
	case c.Cluster.Insecure && (c.Cluster.CA != "" || c.Cluster.CAData != ""):
		return errors.New("want certificate-authority or insecure-skip-tls-verify, not both")
	case u.AuthProvider != nil:
		return errors.New("auth-provider: Kubernetes has it no more; want exec")
	case u.As != "" || u.AsUID != "" || len(u.AsGroups) > 0 || len(u.AsExtra) > 0:
		return errors.New("as: impersonation is not supported")
	case u.Username != "" && (u.Token != "" || u.TokenFile != "" || u.Exec != nil):
		return errors.New("want username and password, or a token, or exec; not more than one")
	case u.Username == "" && u.Password != "":
		return errors.New("password: want a username with it")
	case strings.ContainsAny(u.Token+u.Username+u.Password, "\r\n\x00"):
		return errors.New("token, username and password: want one line")
	case u.Exec != nil:
		return u.Exec.check()
	}
	return nil
}

// path resolves what a kubeconfig has for a path.
func (c *kubeContext) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.folder, p)
}

// bytes returns what a pair of keys has, the data before the file; nil when it has neither.
func (c *kubeContext) bytes(key, data, file string) ([]byte, error) {
	if data != "" {
		b, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("%s-data: want base64", key)
		}
		return b, nil
	}
	if file == "" {
		return nil, nil
	}
	b, err := readFile(c.path(file), maxKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return b, nil
}

// look returns why what the context names on this host cannot be used, each with its key, and the paths of the files with secrets
// that can be. It runs nothing. A plugin may bring a certificate and a token in the place of those that are named, but these are
// read all the same.
func (c *kubeContext) look() (lacks []error, secrets []string) {
	wrong := func(err error) bool {
		if err != nil {
			lacks = append(lacks, err)
		}
		return err != nil
	}
	u := &c.User
	if ca, err := c.bytes("certificate-authority", c.Cluster.CAData, c.Cluster.CA); !wrong(err) && ca != nil {
		if _, err := poolOf(ca); err != nil {
			wrong(fmt.Errorf("certificate-authority: %w", err))
		}
	}
	cert, err := c.bytes("client-certificate", u.CertData, u.Cert)
	bad := wrong(err)
	key, err := c.bytes("client-key", u.KeyData, u.Key)
	if !wrong(err) && u.Key != "" && u.KeyData == "" {
		secrets = append(secrets, c.path(u.Key))
	}
	if !bad && err == nil && (cert != nil || key != nil) && u.Exec == nil {
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			wrong(fmt.Errorf("client-certificate and client-key: %w", err))
		}
	}
	if u.TokenFile != "" {
		path := c.path(u.TokenFile)
		if _, err := (Secret{File: path}).read(); err != nil {
			wrong(fmt.Errorf("tokenFile: %w", err))
		} else {
			secrets = append(secrets, path)
		}
	}
	if u.Exec != nil {
		if err := privilege.MayRun(u.Exec.program(c)); err != nil {
			wrong(fmt.Errorf("exec: command: %w", err))
		}
	}
	return lacks, secrets
}

// secret reports whether the kubeconfig itself says something secret about who we are.
func (c *kubeContext) secret() bool {
	u := &c.User
	return u.Token != "" || u.Password != "" || u.KeyData != ""
}

func poolOf(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("want certificates as PEM")
	}
	return pool, nil
}
