package admin

import (
	"strconv"
	"time"

	"awe4lb/tlsbridge/certs"
)

// certificateStatus is a certificate in use, or a name that waits for one.
type certificateStatus struct {
	Frontend    string       `json:"frontend,omitempty"` // who uses it: one of the two
	Pool        string       `json:"pool,omitempty"`
	Names       []string     `json:"names"`
	Origin      string       `json:"origin"` // file, acme or self-signed
	File        string       `json:"file,omitempty"`
	Key         string       `json:"key,omitempty"` // such as ECDSA P-256
	NotBefore   *time.Time   `json:"not_before,omitempty"`
	NotAfter    *time.Time   `json:"not_after,omitempty"` // of the chain: the earliest
	Fingerprint string       `json:"fingerprint,omitempty"`
	Changed     *time.Time   `json:"changed,omitempty"`
	Error       string       `json:"error,omitempty"` // why what its files hold now is not in use
	Staple      stapleStatus `json:"staple"`
}

type stapleStatus struct {
	State string     `json:"state"`
	Until *time.Time `json:"until,omitempty"`
	Next  *time.Time `json:"next,omitempty"`
	Error string     `json:"error,omitempty"`
}

// acmeStatus is what became of a name that a certificate is wanted for.
type acmeStatus struct {
	Name        string     `json:"name"`
	State       string     `json:"state"` // wanted, ordering, valid or failing
	NotAfter    *time.Time `json:"not_after,omitempty"`
	LastAttempt *time.Time `json:"last_attempt,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	Failures    int        `json:"failures"` // in a row
	Error       string     `json:"error,omitempty"`
}

// when returns t for JSON, nil if it is unknown.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// collectCertificates gathers what there is to say of certificates.
func (s *Server) collectCertificates(out *status) {
	out.Certificates, out.ACME = []certificateStatus{}, []acmeStatus{}
	if s.o.Certificates != nil {
		for _, c := range s.o.Certificates.Status() {
			out.Certificates = append(out.Certificates, certificateStatus{Frontend: c.Frontend, Pool: c.Pool, Names: c.Names,
				Origin: c.Origin, File: c.File, Key: c.Key, NotBefore: when(c.NotBefore), NotAfter: when(c.NotAfter),
				Fingerprint: c.Fingerprint, Changed: when(c.Changed), Error: c.Error,
				Staple: stapleStatus{string(c.Staple.State), when(c.Staple.Until), when(c.Staple.Next), c.Staple.Error}})
		}
		out.keeper = s.o.Certificates.Counters()
	}
	if s.o.Issuer != nil {
		for _, n := range s.o.Issuer.Status() {
			out.ACME = append(out.ACME, acmeStatus{Name: n.Name, State: string(n.State), NotAfter: when(n.NotAfter),
				LastAttempt: when(n.LastAttempt), NextAttempt: when(n.NextAttempt), Failures: n.Failures, Error: n.LastError})
		}
		out.issuer = s.o.Issuer.Counters()
	}
}

// writeCertificates writes the series about certificates. A certificate is told by its first name: one of the
// configuration, or of a file that the configuration names.
func writeCertificates(x *exposition, st *status) {
	labelsOf := make([]string, len(st.Certificates))
	seen := map[string]int{}
	for i, c := range st.Certificates {
		name := ""
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		labelsOf[i] = labels("server", c.Frontend, "pool", c.Pool, "name", name, "origin", c.Origin, "key", c.Key)
		if n := seen[labelsOf[i]]; n > 0 { // two of the same kind for the same name: only the first is used
			seen[labelsOf[i]]++
			labelsOf[i] += "," + labels("nth", strconv.Itoa(n+1))
			continue
		}
		seen[labelsOf[i]] = 1
	}
	each := func(name, help string, value func(c *certificateStatus) float64) {
		x.family(name, "gauge", help)
		for i := range st.Certificates {
			x.gauge(value(&st.Certificates[i]), name, labelsOf[i])
		}
	}
	each("awe4lb_certificate_not_after_timestamp_seconds", "When the certificate expires; 0: there is none yet.",
		func(c *certificateStatus) float64 {
			if c.NotAfter == nil {
				return 0
			}
			return float64(c.NotAfter.Unix())
		})
	each("awe4lb_certificate_stale", "1 when its files hold something that cannot be used, and the old one serves.",
		func(c *certificateStatus) float64 { return oneIf(c.Error != "") })
	each("awe4lb_certificate_stapled", "1 when an OCSP response is stapled to it.",
		func(c *certificateStatus) float64 { return oneIf(c.Staple.State == string(certs.StapleGood)) })
	each("awe4lb_certificate_revoked", "1 when its issuer says that it is revoked.",
		func(c *certificateStatus) float64 { return oneIf(c.Staple.State == string(certs.StapleRevoked)) })
	k := st.keeper
	x.family("awe4lb_certificate_changes_total", "counter", "Changed certificate files, by whether they could be used.")
	x.count(uint64(k.ReloadsOK), "awe4lb_certificate_changes_total", labels("result", "ok"))
	x.count(uint64(k.ReloadsFailed), "awe4lb_certificate_changes_total", labels("result", "failed"))
	x.family("awe4lb_ocsp_failures_total", "counter", "OCSP responses that were not had, or not good.")
	x.count(uint64(k.StapleFailures), "awe4lb_ocsp_failures_total", "")
	x.family("awe4lb_acme_failures", "gauge", "Failed attempts in a row to get a certificate for a name.")
	for _, n := range st.ACME {
		x.gauge(float64(n.Failures), "awe4lb_acme_failures", labels("name", n.Name))
	}
	x.family("awe4lb_acme_not_after_timestamp_seconds", "gauge", "When the certificate in use for a name expires; 0: there is none yet.")
	for _, n := range st.ACME {
		until := 0.0
		if n.NotAfter != nil {
			until = float64(n.NotAfter.Unix())
		}
		x.gauge(until, "awe4lb_acme_not_after_timestamp_seconds", labels("name", n.Name))
	}
	x.family("awe4lb_acme_orders_total", "counter", "Certificates ordered from the authority, by result.")
	x.count(st.issuer.Obtained, "awe4lb_acme_orders_total", labels("result", "ok"))
	x.count(st.issuer.Failed, "awe4lb_acme_orders_total", labels("result", "failed"))
	x.family("awe4lb_acme_challenges_total", "counter", "Challenges of an authority, or of anybody, by kind and whether there was an answer.")
	for _, c := range []struct {
		kind           string
		known, unknown uint64
	}{{"tls-alpn-01", st.issuer.TLSALPN01, st.issuer.TLSALPN01Unknown}, {"http-01", st.issuer.HTTP01, st.issuer.HTTP01Unknown}} {
		x.count(c.known, "awe4lb_acme_challenges_total", labels("kind", c.kind, "answer", "known"))
		x.count(c.unknown, "awe4lb_acme_challenges_total", labels("kind", c.kind, "answer", "unknown"))
	}
}
