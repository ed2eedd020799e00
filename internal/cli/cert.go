package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge/certs"

	"github.com/spf13/cobra"
)

func newCert(p Program) *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "make a certificate for local names, or see which one a name gets",
		Long: `Cert makes a certificate with its key for names that no authority would sign, and shows which certificate a client gets
that asks for a name: from a configuration, or from something that runs.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSelfSigned(), newCertShow(p))
	return c
}

func newSelfSigned() *cobra.Command {
	var out string
	var days int
	var force bool
	c := &cobra.Command{
		Use:   "self-signed [NAME…]",
		Short: "make a key and a certificate that it has signed itself",
		Long: `Self-signed makes an ECDSA P-256 key and a certificate for the names, which may be DNS names, *.NAME for all names one label
longer, and IP addresses; without names for localhost, 127.0.0.1 and ::1. Both go into one PEM file that only you may read.

No authority vouches for it: clients refuse it until they are given a copy of the certificate. It is for tests and for
networks of your own. It is nobody's authority either: who trusts it trusts no other certificate for that.

A frontend makes such a pair by itself where its certificates have self_signed and the files are not there.`,
		Example: `  awe4lb cert self-signed
  awe4lb cert self-signed --out db.pem --days 90 db.internal '*.db.internal' 10.0.0.7
  curl --cacert awe4lb-cert.pem https://localhost:8443/`,
		RunE: func(c *cobra.Command, names []string) error {
			if days < 1 || days > 3650 {
				return fmt.Errorf("--days: got %d; want 1 to 3650", days)
			}
			if len(names) == 0 {
				names = []string{"localhost", "127.0.0.1", "::1"}
			}
			cert, key, err := certs.SelfSigned(names, time.Now(), days)
			if err != nil {
				return err
			}
			err = certs.WriteFile(out, append(cert, key...), force)
			if errors.Is(err, fs.ErrExist) {
				return exitError{fmt.Errorf("%s is there already: --force replaces it, and clients that trust it no longer will", out), exitConfig}
			} else if err != nil {
				return exitError{err, exitConfig}
			}
			return explainSelfSigned(c.OutOrStdout(), out, cert, days)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "awe4lb-cert.pem", "`FILE` for key and certificate")
	c.Flags().IntVar(&days, "days", certs.SelfSignedDays, "how long it is good, `DAYS`")
	c.Flags().BoolVar(&force, "force", false, "replace the file if it is there")
	return c
}

// explainSelfSigned says what to do with a new pair.
func explainSelfSigned(out io.Writer, path string, cert []byte, days int) error {
	leaf, err := parseLeaf(cert)
	if err != nil {
		return err
	}
	s := certs.Describe(leaf)
	fmt.Fprintf(out, "%s: a key and a certificate\n", path)
	printCertificate(out, &s)
	absolute, err := filepath.Abs(path)
	if err != nil {
		absolute = path
	}
	host := s.Names[0]
	if strings.HasPrefix(host, "*.") {
		host = "www" + host[1:]
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	fmt.Fprintf(out, "\nIn the configuration:\n  [frontends.NAME.tls]\n  certificates = [{ cert = %q }]\n", absolute)
	fmt.Fprintf(out, "For clients, without the key in it:\n  openssl x509 -in %s -out trust-me.pem\n  curl --cacert trust-me.pem https://%s/\n", path, host)
	if days > 398 {
		fmt.Fprintln(out, "Browsers refuse certificates for more than 398 days.")
	}
	return nil
}

func newCertShow(p Program) *cobra.Command {
	var path, frontend, connect, ca string
	c := &cobra.Command{
		Use:   "show [NAME]",
		Short: "show the certificate that a client gets who asks for a name",
		Long: `Show tells which certificate a client gets that asks for a name, by SNI; without a name, what it gets when it does not ask.

With --config it reads a configuration and the files it names, and starts nothing: that is what frontends serve after the
next start or reload. Certificates that an ACME authority has issued are known to the running process only.

With --connect it makes a handshake with something that runs, awe4lb or not, and shows what comes back, and whether this
host's authorities, or those of --ca, vouch for it.

It exits with 0 when a certificate has the name, else with 1: then a frontend serves its default, which clients refuse.`,
		Example: `  awe4lb cert show --config /etc/awe4lb.toml shop.example
  awe4lb cert show --config /etc/awe4lb.toml --frontend web shop.example
  awe4lb cert show --connect 127.0.0.1:8443 shop.example`,
		Args: wants(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = strings.ToLower(strings.TrimSuffix(args[0], "."))
			}
			if connect != "" {
				return showRunning(c.Context(), c.OutOrStdout(), connect, ca, name)
			}
			cfg, err := p.Load(path)
			if err != nil {
				return BadConfig(err)
			}
			return showConfigured(c.OutOrStdout(), cfg, path, frontend, name)
		},
	}
	configFlag(c, &path)
	c.Flags().StringVarP(&frontend, "frontend", "f", "", "only this `FRONTEND`; default: all that terminate TLS")
	c.Flags().StringVar(&connect, "connect", "", "ask what listens at `HOST:PORT`")
	c.Flags().StringVar(&ca, "ca", "", "with --connect: PEM `FILE` of the authorities to trust; default: this host's")
	c.MarkFlagsMutuallyExclusive("connect", "config")
	c.MarkFlagsMutuallyExclusive("connect", "frontend")
	c.MarkFlagsMutuallyExclusive("ca", "config")
	return c
}

// showConfigured tells what the frontends of a configuration serve for a name.
func showConfigured(out io.Writer, cfg *config.Config, path, frontend, name string) error {
	k := certs.New(slog.New(slog.DiscardHandler), nil)
	defer k.Close()
	set, err := k.Prepare(cfg)
	if err != nil {
		return BadConfig(err)
	}
	var asked []*config.Frontend
	for _, f := range cfg.Frontends {
		if f.TLS != nil && (frontend == "" || f.Name == frontend) {
			asked = append(asked, f)
		}
	}
	if len(asked) == 0 && frontend != "" {
		return BadConfig(fmt.Errorf("%s: no frontend %q that terminates TLS", path, frontend))
	} else if len(asked) == 0 {
		return BadConfig(fmt.Errorf("%s: no frontend terminates TLS: none has a tls table", path))
	}
	found := name == ""
	for i, f := range asked {
		if i > 0 {
			fmt.Fprintln(out)
		}
		list, named := k.Serves(set.Servers[f.Name], name)
		found = found || named
		switch {
		case named:
			fmt.Fprintf(out, "frontend %s, for %s:\n", f.Name, name)
		case name == "":
			fmt.Fprintf(out, "frontend %s, for clients that ask for no name:\n", f.Name)
		default:
			fmt.Fprintf(out, "frontend %s, no certificate has the name %s: the default\n", f.Name, name)
		}
		for _, s := range list {
			printCertificate(out, &s)
		}
		if len(list) > 1 {
			fmt.Fprintln(out, "  which of these a client gets depends on the keys it supports, the first if it supports all")
		}
		if wanted := f.TLS.ACME; len(wanted) > 0 {
			fmt.Fprintf(out, "  and by ACME, as far as issued (see --connect): %s\n", strings.Join(wanted, ", "))
		}
		if all := set.Servers[f.Name].Names(); name != "" && !named && len(all) > 0 {
			fmt.Fprintf(out, "  it has: %s\n", strings.Join(all, ", "))
		}
	}
	if !found {
		return exitError{fmt.Errorf("no certificate has the name %s", name), exitConfig}
	}
	return nil
}

// printCertificate prints what there is to know of a certificate.
func printCertificate(out io.Writer, s *certs.CertificateStatus) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	switch {
	case s.Unwritten:
		line("file", "%s (not there yet: a self-signed pair is made at the start)", s.File)
	case s.File != "":
		line("file", "%s", s.File)
	}
	line("names", "%s", strings.Join(s.Names, ", "))
	line("key", "%s", s.Key)
	now := time.Now()
	switch left := s.NotAfter.Sub(now); {
	case now.Before(s.NotBefore):
		line("expires", "%s; NOT VALID before %s", stamp(s.NotAfter), stamp(s.NotBefore))
	case left <= 0:
		line("expires", "%s: EXPIRED", stamp(s.NotAfter))
	case left < 48*time.Hour:
		line("expires", "%s, in %s", stamp(s.NotAfter), Plural(int(left.Hours()), "hour"))
	default:
		line("expires", "%s, in %s", stamp(s.NotAfter), Plural(int(left.Hours()/24), "day"))
	}
	line("fingerprint", "%s (SHA-256)", s.Fingerprint)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
