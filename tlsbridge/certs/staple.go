package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"awe4lb/tlsbridge"

	"golang.org/x/crypto/ocsp"
)

const (
	stapleAsk      = 15 * time.Second // how long a responder may take
	stapleMax      = 64 << 10         // the largest response that is read
	stapleRetry    = time.Minute      // after the first failure, then twice as long each time
	stapleRetryMax = time.Hour
	stapleSkew     = 5 * time.Minute // by which a responder's clock may be ahead
	stapleForever  = 24 * time.Hour  // how long a response is good that does not say
	stapleAtOnce   = 4               // responders asked at once
)

// StapleState is how a certificate stands with OCSP.
type StapleState string

const (
	StapleOff     StapleState = "off"     // nobody wants one: not asked for, or the certificate names no responder
	StapleWaiting StapleState = "waiting" // the responder has not answered yet
	StapleGood    StapleState = "good"    // one is stapled
	StapleFailed  StapleState = "failed"  // there is none: no answer, or none that is good
	StapleRevoked StapleState = "revoked" // the certificate is revoked, and nothing is stapled
)

// staple is an OCSP response for one certificate, and where it comes from. Guarded by Keeper.mu, but for what is set once.
// A response that is still good stays in use while its successor is not to be had.
type staple struct {
	// Set once, never changed.
	key       string
	leaf      *x509.Certificate
	issuer    *x509.Certificate
	responder string   // URL; "": the response is in a file
	names     []string // for the log

	state        StapleState
	response     []byte    // DER, good; nil: none
	since, until time.Time // of response
	err          error     // of the last attempt
	file         []byte    // what the file held when it was last judged
	next         time.Time // when to ask
	failures     int       // in a row
	asking       bool
	wanted       bool // a frontend staples it
}

// stapleKey tells the staples of c apart from others': two frontends with the same certificate share one.
func stapleKey(c *composed) string {
	key := c.certificate.Fingerprint()
	if c.pair != nil {
		key += "\x00" + c.pair.key.ocsp
	}
	return key
}

// stapleFor returns the staple of a certificate of sv, with a new one to be asked for if need be, or nil: it has none.
func (k *Keeper) stapleFor(sv *Server, c *composed, now time.Time) *staple {
	fromFile := c.pair != nil && c.pair.ocsp != nil
	if !fromFile && !sv.table.OCSPStapling {
		return nil
	}
	key := stapleKey(c)
	st := k.staples[key]
	if st == nil {
		st = &staple{key: key, leaf: c.certificate.Leaf(), issuer: issuerOf(c.certificate), names: names(c.certificate),
			state: StapleWaiting, next: now}
		if urls := responders(st.leaf); !fromFile && (len(urls) == 0 || st.issuer == nil) {
			return nil
		} else if !fromFile {
			st.responder = urls[0]
		}
		k.staples[key] = st
	}
	if fromFile && !bytes.Equal(st.file, c.pair.response) {
		st.file = c.pair.response
		k.judged(st, st.file, now)
	}
	return st
}

// responders returns the URLs of a certificate's OCSP responders, those that we can ask.
func responders(leaf *x509.Certificate) (urls []string) {
	for _, s := range leaf.OCSPServer {
		if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			urls = append(urls, s)
		}
	}
	return urls
}

// issuerOf returns the certificate that signed the leaf, if the chain has it.
func issuerOf(c *tlsbridge.Certificate) *x509.Certificate {
	for _, der := range c.Pair().Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err == nil && bytes.Equal(cert.RawSubject, c.Leaf().RawIssuer) && c.Leaf().CheckSignatureFrom(cert) == nil {
			return cert
		}
	}
	return nil
}

// whyNoStaple says why a responder cannot be asked about a certificate, "" if it can.
func whyNoStaple(c *tlsbridge.Certificate, stapling bool) string {
	switch {
	case !stapling:
		return "ocsp_stapling is off"
	case len(responders(c.Leaf())) == 0:
		return "names no responder to get one from"
	case issuerOf(c) == nil:
		return "its issuer is not in the file after it, so that none can be asked for"
	}
	return ""
}

var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// mustStaple reports whether a certificate wants clients to refuse it without a staple (RFC 7633).
func mustStaple(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidTLSFeature) {
			continue
		}
		var features []int
		_, err := asn1.Unmarshal(e.Value, &features)
		return err == nil && slices.Contains(features, 5) // status_request
	}
	return false
}

// verdict is what a good response says.
type verdict struct{ since, until time.Time }

// revokedError is that a certificate is revoked.
type revokedError struct{ at time.Time }

func (e *revokedError) Error() string { return "the certificate was revoked at " + day(e.at) }

// JudgeResponse checks an OCSP response in DER for a chain, leaf first, and returns until when it is good, or why it is not.
func JudgeResponse(der []byte, chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	var issuer *x509.Certificate
	if len(chain) > 1 {
		issuer = chain[1]
	}
	v, err := judge(der, chain[0], issuer, now)
	return v.until, err
}

// judge checks a response in DER: whether it is for leaf, signed by its issuer or one that the issuer allows to, good, and
// of now.
func judge(der []byte, leaf, issuer *x509.Certificate, now time.Time) (v verdict, err error) {
	if issuer == nil {
		return v, errors.New("the issuer's certificate is not in the file after the certificate: the response cannot be verified")
	}
	r, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	if err != nil {
		// Some responders enclose the issuer's own certificate, which the issuer need not have signed.
		enclosed, e := ocsp.ParseResponseForCert(der, leaf, nil)
		if e != nil || enclosed.Certificate == nil || !enclosed.Certificate.Equal(issuer) {
			return v, err
		}
		r = enclosed
	}
	if c := r.Certificate; c != nil && !c.Equal(issuer) {
		// The package has seen that the issuer signed it, not that it may sign responses: RFC 6960, section 4.2.2.2.
		if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return v, fmt.Errorf("the response is signed by %q, who may not sign any", c.Subject)
		}
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return v, fmt.Errorf("the certificate of the responder, %q, is not valid now", c.Subject)
		}
	}
	v.since, v.until = r.ThisUpdate, r.NextUpdate
	if v.until.IsZero() {
		v.until = v.since.Add(stapleForever)
	}
	switch {
	case r.Status == ocsp.Revoked:
		return v, &revokedError{r.RevokedAt}
	case r.Status != ocsp.Good:
		return v, errors.New("the responder does not know the certificate")
	case now.Add(stapleSkew).Before(v.since):
		return v, fmt.Errorf("the response is good from %s only: is the clock right?", day(v.since))
	case !now.Before(v.until):
		return v, fmt.Errorf("the response was good until %s", day(v.until))
	}
	return v, nil
}

// judged puts a response to use, or says why not.
func (k *Keeper) judged(st *staple, der []byte, now time.Time) {
	v, err := judge(der, st.leaf, st.issuer, now)
	if err != nil {
		k.noStaple(st, err, now)
		return
	}
	if st.state != StapleGood {
		k.log.Info("OCSP response stapled", "names", st.names, "until", v.until)
	}
	st.state, st.err, st.failures = StapleGood, nil, 0
	st.response, st.since, st.until = der, v.since, v.until
	st.next = now.Add(max(jitter(v.until.Sub(now)/2), stapleRetry))
	k.dirty = true
}

// noStaple notes that there is no new response, and when to ask again.
func (k *Keeper) noStaple(st *staple, err error, now time.Time) {
	k.dirty = true
	known := st.err != nil && st.err.Error() == err.Error()
	st.err = err
	attrs := []any{"names", st.names, "error", err}
	if st.responder != "" {
		attrs = append(attrs, "responder", st.responder)
	}
	if _, revoked := err.(*revokedError); revoked {
		if st.state != StapleRevoked {
			k.log.Error("CERTIFICATE REVOKED by its issuer: clients that ask will refuse it; replace it", attrs...)
		}
		st.state, st.response, st.failures = StapleRevoked, nil, 0
		st.next = now.Add(jitter(stapleRetryMax))
		return
	}
	k.counters.stapleFailures.Add(1)
	st.failures++
	st.next = now.Add(jitter(min(stapleRetry<<min(st.failures-1, 10), stapleRetryMax)))
	switch {
	case st.response != nil:
		if !known {
			k.log.Warn("no new OCSP response: the old one is good for a while", append(attrs, "until", st.until)...)
		}
		return
	case known:
	case mustStaple(st.leaf):
		k.log.Error("no OCSP response for a certificate that demands one: clients will refuse it", attrs...)
	default:
		k.log.Warn("no OCSP response to staple", attrs...)
	}
	if st.state != StapleRevoked {
		st.state = StapleFailed
	}
}

// jitter returns d, up to a fifth shorter: so that balancers that began together do not go on together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// expireStaples drops the responses that are no longer good.
func (k *Keeper) expireStaples(now time.Time) {
	for _, st := range k.staples {
		if st.response == nil || now.Before(st.until) {
			continue
		}
		st.response, st.state, k.dirty = nil, StapleFailed, true
		k.log.Error("the OCSP response has expired and is no longer stapled", "names", st.names, "until", st.until, "error", st.err)
	}
}

// askResponders asks for the responses that are due.
func (k *Keeper) askResponders(now time.Time) {
	for _, st := range k.staples {
		if st.responder == "" || st.asking || now.Before(st.next) || k.fetching >= stapleAtOnce || k.ctx.Err() != nil {
			continue
		}
		st.asking = true
		k.fetching++
		k.running.Go(func() { k.askResponder(st) })
	}
}

// askResponder is a goroutine that asks one responder once.
func (k *Keeper) askResponder(st *staple) {
	der, err := fetchResponse(k.ctx, k.client, st.leaf, st.issuer, st.responder)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetching--
	st.asking = false
	if k.ctx.Err() != nil || k.staples[st.key] != st {
		return // nobody wants it any more
	}
	now := k.now()
	if err != nil {
		k.noStaple(st, err, now)
	} else {
		k.judged(st, der, now)
	}
	if k.askResponders(now); k.fetching == 0 { // else the last one does, or the next look: there may be a thousand
		k.compose(now)
		k.publish()
	}
}

// fetchResponse asks a responder about a certificate and returns what it says, unchecked.
func fetchResponse(ctx context.Context, client *http.Client, leaf, issuer *x509.Certificate, responder string) ([]byte, error) {
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, stapleAsk)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/ocsp-request")
	request.Header.Set("Accept", "application/ocsp-response")
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", responder, answer.Status)
	}
	der, err := io.ReadAll(io.LimitReader(answer.Body, stapleMax+1))
	if err != nil {
		return nil, err
	}
	if len(der) > stapleMax {
		return nil, fmt.Errorf("%s answers with more than %d kB", responder, stapleMax>>10)
	}
	return der, nil
}

// newHTTPClient returns a client for responders. A question every few days is not worth an open connection.
func newHTTPClient() *http.Client {
	return &http.Client{Timeout: stapleAsk, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		MaxResponseHeaderBytes: 16 << 10}}
}
