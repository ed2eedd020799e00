package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"awe4lb/config"
)

// answered reports whether an attempt failed because the CA said so, and not on the way to it.
func answered(err error) bool {
	var problem acme.Problem
	return errors.As(err, &problem)
}

// rateLimited reports whether it failed because we ask too often.
func rateLimited(err error) bool {
	var problem acme.Problem
	return errors.As(err, &problem) && problem.Type == acme.ProblemTypeRateLimited
}

// explain returns what went wrong in one attempt and what a person can do, in a line.
func explain(err error, s *config.ACME) string {
	var problem acme.Problem
	if errors.As(err, &problem) {
		return explainProblem(err, problem, s)
	}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var transport *url.Error
	var network *net.OpError
	switch {
	case errors.As(err, &unknown) && s.CA == "":
		return fmt.Sprintf("%s is not trusted: its own certificate is signed by nobody this system knows; want acme.ca, a PEM file with who signed it", s.Directory)
	case errors.As(err, &unknown):
		return fmt.Sprintf("%s is not trusted: nobody in acme.ca has signed its own certificate", s.Directory)
	case errors.As(err, &invalid), errors.As(err, &hostname):
		return fmt.Sprintf("%s is not trusted: %v", s.Directory, last(err))
	case errors.As(err, &network):
		return fmt.Sprintf("no answer from %s: %v", s.Directory, network)
	case errors.As(err, &transport):
		return fmt.Sprintf("no answer from %s: %v", s.Directory, transport.Err)
	}
	return trim(err)
}

// explainProblem does so for what the CA has said.
func explainProblem(err error, p acme.Problem, s *config.ACME) string {
	said := p.Detail
	for _, sub := range p.Subproblems {
		said += "; " + sub.Detail
	}
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	said = fmt.Sprintf("the CA says %s (%s)", said, kind)
	if errors.Is(err, errAccountEnded) {
		return said + ": it has ended two accounts of ours within a day; ask it why, then remove the folder accounts in acme.storage, or set another acme.email"
	}
	_, validation := p.Resource.(acme.Authorization)
	switch {
	case p.Type == acme.ProblemTypeExternalAccountRequired:
		return said + ": want acme.eab_key_id and acme.eab_hmac_key, which it gives its customers"
	case errors.As(err, new(registrationError)) && s.EABKeyID != "":
		return said + ": it does not take acme.eab_key_id with acme.eab_hmac_key; some are good for one account only, then ask it for new ones"
	case errors.As(err, new(registrationError)):
		return said + ": it registers no account for us"
	case p.Type == acme.ProblemTypeRateLimited:
		return said + ": try things out with its staging directory"
	case p.Type == acme.ProblemTypeUserActionRequired:
		return said + ": it wants a person to look at " + p.Instance
	case p.Type == acme.ProblemTypeCAA:
		return said + ": the name's CAA records do not allow this CA"
	case p.Type == acme.ProblemTypeRejectedIdentifier:
		return said + ": it gives no certificates for this name"
	case p.Type == acme.ProblemTypeDNS:
		return said + ": the name has to have an address in the DNS that leads here"
	case validation:
		return said + ": from the CA the name has to lead to this process, by port 443 to the frontend with tls.acme, or by port 80 to one with acme_challenges"
	}
	return said
}

// last returns the innermost error.
func last(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// trim takes off what certmagic puts in front: the name is known.
func trim(err error) string {
	text := err.Error()
	for _, prefix := range []string{"] Obtain: ", "] Renew: "} {
		if _, rest, ok := strings.Cut(text, prefix); ok {
			return rest
		}
	}
	return text
}
