package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"awe4lb/config"
)

// authority is a CA as certmagic knows one: it implements certmagic.Issuer. certmagic's own binds ports for challenges and
// has one account per email, however the account ended.
type authority struct {
	// Set once, never changed.
	key      string // the CA's folder in the storage, as certmagic names it
	settings config.ACME
	http     *http.Client
	solvers  map[string]acmez.Solver
	accounts *accounts
	log      *slog.Logger
}

// replacesKey is the context's key of the *x509.Certificate that an order replaces: CAs go easier on renewals (RFC 9773).
type replacesKey struct{}

func newAuthority(settings config.ACME, bundle []byte, s *storage, solvers map[string]acmez.Solver, log *slog.Logger) (*authority, error) {
	directory, err := url.Parse(settings.Directory)
	if err != nil || directory.Scheme != "https" || directory.Host == "" {
		return nil, fmt.Errorf("acme.directory: got %q; want a URL with https://", settings.Directory)
	}
	if !settings.Agree {
		return nil, errors.New("acme.agree: got false; want true, after reading the CA's terms of service")
	}
	if (settings.EABKeyID == "") != (settings.EABHMAC == "") {
		return nil, errors.New("acme.eab_key_id: want both or neither of eab_key_id and eab_hmac_key")
	}
	var roots *x509.CertPool
	if settings.CA != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("acme.ca: %s: want certificates in PEM", settings.CA)
		}
	}
	a := &authority{settings: settings, solvers: solvers, log: log}
	a.key = directory.Host
	if path := strings.Trim(strings.NewReplacer("/", "-", `\`, "-").Replace(directory.Path), "-"); path != "" {
		a.key += "-" + path
	}
	a.http = &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: roots},
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			ForceAttemptHTTP2:     true,
		},
	}
	a.accounts = &accounts{authority: a, storage: s}
	return a, nil
}

// client returns a client for one order: it keeps nothing but nonces.
func (a *authority) client() *acmez.Client {
	return &acmez.Client{
		Client:           &acme.Client{Directory: a.settings.Directory, HTTPClient: a.http, UserAgent: "awe4lb"},
		ChallengeSolvers: a.solvers,
	}
}

// IssuerKey names the CA's folder in the storage.
func (a *authority) IssuerKey() string { return a.key }

// Issue gets a certificate for a request. Both kinds of challenge are offered to acmez, which tries the kind that has
// worked best so far and, when it fails, the other.
func (a *authority) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	client := a.client()
	replaces, _ := ctx.Value(replacesKey{}).(*x509.Certificate)
	for tries := 1; ; tries++ {
		account, err := a.accounts.get(ctx, client)
		if err != nil {
			return nil, err
		}
		params, err := acmez.OrderParametersFromCSR(account, csr)
		if err != nil {
			return nil, err
		}
		params.Replaces = replaces
		chains, err := client.ObtainCertificate(ctx, params)
		if err == nil && len(chains) == 0 {
			err = errors.New("the CA sent no certificate")
		}
		if err == nil {
			return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM, Metadata: chains[0]}, nil
		}
		// Is there a reason to try again at once? An account that ended, or that the old certificate does not belong to.
		replaced, accountErr := a.accounts.replace(ctx, client, account, err)
		if accountErr != nil {
			return nil, accountErr
		}
		if tries == 3 || !replaced && (replaces == nil || !refused(err)) {
			return nil, err
		}
		replaces = nil
	}
}

// refused reports whether the CA did not take an order, as opposed to finding it not fulfilled, or being asked too often.
func refused(err error) bool {
	var problem acme.Problem
	if !errors.As(err, &problem) || rateLimited(err) {
		return false
	}
	_, validation := problem.Resource.(acme.Authorization)
	return !validation
}

// renewalInfo asks when a certificate should be renewed.
func (a *authority) renewalInfo(ctx context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error) {
	return a.client().GetRenewalInfo(ctx, leaf)
}
