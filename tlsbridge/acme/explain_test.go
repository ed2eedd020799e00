package acme

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"

	"awe4lb/config"
)

func TestExplain(t *testing.T) {
	problem := func(kind string) acme.Problem {
		return acme.Problem{Type: acme.ProblemTypeNamespace + kind, Detail: "so it is", Instance: "https://ca.example/terms"}
	}
	validation := problem("connection")
	validation.Resource = acme.Authorization{}
	bound := config.ACME{Directory: "https://ca.example/dir", EABKeyID: "kid", EABHMAC: "secret"}
	for _, c := range []struct {
		err  error
		s    config.ACME
		want string
	}{
		{problem("rateLimited"), config.ACME{}, "the CA says so it is (rateLimited): try things out with its staging directory"},
		{problem("caa"), config.ACME{}, "CAA records do not allow this CA"},
		{problem("dns"), config.ACME{}, "has to have an address in the DNS"},
		{problem("rejectedIdentifier"), config.ACME{}, "no certificates for this name"},
		{problem("userActionRequired"), config.ACME{}, "look at https://ca.example/terms"},
		{problem("externalAccountRequired"), config.ACME{}, "want acme.eab_key_id and acme.eab_hmac_key"},
		{registrationError{problem("malformed")}, bound, "does not take acme.eab_key_id"},
		{registrationError{problem("invalidContact")}, config.ACME{}, "the CA says so it is (invalidContact): it registers no account"},
		{validation, config.ACME{}, "the name has to lead to this process"},
		{fmt.Errorf("%w: %w", errAccountEnded, problem("unauthorized")), config.ACME{}, "ended two accounts of ours within a day"},
		{problem("serverInternal"), config.ACME{}, "the CA says so it is (serverInternal)"},
		{errors.New("[www.example.com] Renew: the rest"), config.ACME{}, "the rest"},
		{errors.New("acme.storage: disk full"), config.ACME{}, "acme.storage: disk full"},
	} {
		got := explain(fmt.Errorf("[www.example.com] Renew: %w", c.err), &c.s)
		if !strings.Contains(got, c.want) || strings.Contains(got, "secret") {
			t.Errorf("got %q; want … %s …", got, c.want)
		}
	}
}
