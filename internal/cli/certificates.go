package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"awe4lb/internal/human"
)

// certificateList is the answer of GET /certificates.
type certificateList struct {
	Certificates []struct {
		Frontend    string     `json:"frontend"`
		Pool        string     `json:"pool"`
		Names       []string   `json:"names"`
		Origin      string     `json:"origin"`
		File        string     `json:"file"`
		Key         string     `json:"key"`
		NotAfter    *time.Time `json:"not_after"`
		Fingerprint string     `json:"fingerprint"`
		Error       string     `json:"error"`
		Staple      struct {
			State string `json:"state"`
			Error string `json:"error"`
		} `json:"staple"`
	} `json:"certificates"`
	ACME []struct {
		Name        string     `json:"name"`
		State       string     `json:"state"`
		NotAfter    *time.Time `json:"not_after"`
		NextAttempt *time.Time `json:"next_attempt"`
		Failures    int        `json:"failures"`
		Error       string     `json:"error"`
	} `json:"acme"`
}

func newCertificates(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "certificates",
		Short: "the certificates in use and when they expire",
		Long: `Certificates lists those that frontends and pools use: the names in them, when they expire, where they come from, and whether an
OCSP response is stapled; below, the names that a certificate is wanted for by ACME. 'awe4lb cert show' says which one a client gets.`,
		Example: "  awe4lb certificates\n  awe4lb certificates -o json | jq -r '.certificates[] | .not_after + \" \" + .names[0]'",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var list certificateList
		return c.get("/api/v1/certificates", &list, func() { c.printCertificates(&list) })
	})
}

func (c *call) printCertificates(list *certificateList) {
	if len(list.Certificates) == 0 {
		c.printf("none\n")
	} else {
		title := []string{"NAMES", "USED-BY", "EXPIRES", "IN", "FROM", "OCSP"}
		if c.wide() {
			title = append(title, "KEY", "FINGERPRINT", "PROBLEM")
		}
		t := c.table(title...)
		for _, each := range list.Certificates {
			user, names := each.Frontend, strings.Join(each.Names, ",")
			if user == "" {
				user = each.Pool
			}
			if !c.wide() && len(each.Names) > 2 {
				names = fmt.Sprintf("%s,%s +%d", each.Names[0], each.Names[1], len(each.Names)-2)
			}
			from := strings.TrimSuffix(each.Origin+":"+each.File, ":")
			row := append([]string{names, user}, expiry(each.NotAfter)...)
			row = append(row, from, each.Staple.State)
			if c.wide() {
				row = append(row, each.Key, each.Fingerprint, each.Error)
			}
			t.row(row...)
		}
		t.end()
		for _, each := range list.Certificates {
			if each.Error != "" && !c.wide() {
				c.printf("%s: %s\n", human.Printable(strings.Join(each.Names, ",")), human.Printable(each.Error))
			}
		}
	}
	if len(list.ACME) == 0 {
		return
	}
	c.printf("\n")
	t := c.table("ACME", "STATE", "EXPIRES", "IN", "NEXT-ATTEMPT", "FAILURES", "WHY")
	for _, a := range list.ACME {
		next := ""
		if a.NextAttempt != nil {
			next = stamp(*a.NextAttempt)
		}
		t.row(append(append([]string{a.Name, a.State}, expiry(a.NotAfter)...), next, unlessZero(a.Failures), a.Error)...)
	}
	t.end()
}

// expiry says when something expires, and in what time.
func expiry(at *time.Time) []string {
	if at == nil {
		return []string{"", ""}
	}
	if left := time.Until(*at); left > 0 {
		return []string{stamp(*at), human.Duration(left)}
	}
	return []string{stamp(*at), "EXPIRED"}
}
