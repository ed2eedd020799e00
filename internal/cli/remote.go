package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// The exit codes of commands that speak with a running process, beside exitOK and exitUsage. They are part of the interface:
// docs/cli.md.
const (
	exitRefused     = 1
	exitUnreachable = 3
	exitDenied      = 4
)

const remoteHelp = `

Exit codes
  0  done                                      3  the admin cannot be reached
  1  it refused, or there are mistakes         4  it wants other credentials
  2  bad usage`

// The environment of these commands.
const (
	envAdmin    = "AWE4LB_ADMIN"
	envToken    = "AWE4LB_TOKEN"
	envPassword = "AWE4LB_PASSWORD"
)

// remote is whom a command speaks with, as whom, and how it answers: the flags that all of them have.
type remote struct {
	load func(path string) (admin, error) // of --config

	address, config string
	tokenFile, user string
	ca, cert, key   string
	output          string
}

// admin is where a configuration has its admin.
type admin struct {
	address string
	tls     bool
}

// call is a command under way.
type call struct {
	*cobra.Command
	api    *client.Client
	output string // json, text or wide
}

// remoteCommand has c, whose help it completes, run with a client.
func remoteCommand(p Program, c *cobra.Command, run func(c *call, args []string) error) *cobra.Command {
	r := &remote{load: p.adminOf}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&r.output, "output", "o", "text", "json (as the API says it), text or wide")
	f.StringVar(&r.address, "admin", "", "`ADDRESS` of the admin: host:port, http(s)://host:port or unix:/path; default $"+envAdmin+" or "+client.DefaultAddress)
	f.StringVarP(&r.config, "config", "c", "", "the address is admin.bind of this configuration `FILE`")
	f.StringVar(&r.tokenFile, "token-file", "", "`FILE` that holds a token; default $"+envToken)
	f.StringVar(&r.user, "user", "", "`NAME` of a user, with the password in $"+envPassword+" or as typed")
	f.StringVar(&r.ca, "ca", "", "PEM `FILE` of the authorities to trust; default: this host's")
	f.StringVar(&r.cert, "cert", "", "PEM `FILE` of a client certificate")
	f.StringVar(&r.key, "key", "", "PEM `FILE` of its key; default: in --cert")
	c.MarkFlagsMutuallyExclusive("admin", "config")
	c.MarkFlagsMutuallyExclusive("token-file", "user")
	_ = c.MarkFlagFilename("config", "toml")
	for _, name := range []string{"token-file", "ca", "cert", "key"} {
		_ = c.MarkFlagFilename(name)
	}
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "text", "wide"}, cobra.ShellCompDirectiveNoFileComp))
	f.VisitAll(func(each *pflag.Flag) { _ = f.SetAnnotation(each.Name, annotation, nil) })
	c.SetUsageFunc(usage)
	c.Long = strings.TrimSpace(c.Long) + remoteHelp
	c.RunE = func(c *cobra.Command, args []string) error {
		if r.output != "json" && r.output != "text" && r.output != "wide" {
			return fmt.Errorf("--output: got %q; want json, text or wide", r.output)
		}
		api, err := r.client(c, true)
		if err != nil {
			return err
		}
		if api.SendsInTheClear() {
			fmt.Fprintf(c.ErrOrStderr(), "warning: %s: credentials cross the network in the clear: https:// would hide them\n", api.Address())
		}
		return answered(run(&call{c, api, r.output}, args))
	}
	return c
}

// annotation marks the flags that all of these commands have.
const annotation = "awe4lb_remote"

// usage is cobra's, with these flags apart from those of the command itself. A template would say it shorter, and make the
// binary a third larger: text/template keeps the linker from leaving out methods that nobody calls.
func usage(c *cobra.Command) error {
	shared := pflag.NewFlagSet("", pflag.ContinueOnError)
	shared.SortFlags = false
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, is := f.Annotations[annotation]; is && !f.Hidden {
			shared.AddFlag(f)
		}
	})
	hide := func(hidden bool) { shared.VisitAll(func(f *pflag.Flag) { f.Hidden = hidden }) }
	usages := shared.FlagUsages()
	hide(true)
	err := c.Root().UsageFunc()(c)
	hide(false)
	fmt.Fprintf(c.OutOrStdout(), "\nWhom to ask, as whom, and how to answer:\n%s", usages)
	return err
}

// answered gives an error of a call its exit code. Others stay: they are about usage.
func answered(err error) error {
	var problem *client.Problem
	var unreachable *client.Unreachable
	var done exitError
	switch {
	case err == nil, errors.As(err, &done):
		return err
	case errors.As(err, &problem) && problem.IsDenied():
		hint := ""
		if problem.Status == http.StatusUnauthorized {
			hint = " (--token-file, $" + envToken + " or --user)"
		}
		return exitError{fmt.Errorf("%w%s", err, hint), exitDenied}
	case errors.As(err, &problem):
		return exitError{err, exitRefused}
	case errors.As(err, &unreachable):
		hint := ""
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
			hint = ": nobody listens there; --admin or $" + envAdmin + " says where awe4lb does"
		}
		return exitError{fmt.Errorf("%w%s", err, hint), exitUnreachable}
	}
	return err
}

// client returns the client that the flags and the environment mean. A password is asked for where ask is set.
func (r *remote) client(c *cobra.Command, ask bool) (*client.Client, error) {
	o := client.Options{Address: r.address, Token: os.Getenv(envToken), User: r.user, CA: r.ca, Cert: r.cert, Key: r.key}
	if r.config != "" {
		a, err := r.load(r.config)
		if err != nil {
			return nil, err
		}
		o.Address, o.TLS = a.address, a.tls
	} else if o.Address == "" {
		o.Address = os.Getenv(envAdmin)
	}
	if r.tokenFile != "" {
		text, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if o.Token = strings.TrimSpace(string(text)); o.Token == "" || strings.ContainsAny(o.Token, "\r\n") {
			return nil, fmt.Errorf("--token-file: %s: want one line", r.tokenFile)
		}
	}
	if r.user != "" {
		o.Token = ""
		if o.Password = os.Getenv(envPassword); o.Password == "" && ask {
			password, err := askPassword(c, "Password of "+r.user+": ")
			if err != nil {
				return nil, fmt.Errorf("--user: %w", err)
			}
			o.Password = password
		}
	}
	api, err := client.New(o)
	if err != nil {
		return nil, fmt.Errorf("address and certificates of the admin: %w", err)
	}
	return api, nil
}

// adminOf returns where a configuration has its admin, as this host reaches it.
func (p Program) adminOf(path string) (a admin, err error) {
	cfg, err := p.Load(path)
	if err != nil {
		return a, BadConfig(err)
	}
	bind := cfg.Admin.Address
	switch a.tls = cfg.Admin.TLS != nil; {
	case cfg.Admin.Bind == "":
		return a, BadConfig(fmt.Errorf("%s: admin.bind is \"\": the admin is off", path))
	case bind.IsUnix():
		a.address = bind.String()
	case bind.IP.Port() == 0:
		return a, BadConfig(fmt.Errorf("%s: admin.bind has port 0: --admin has to say which it became", path))
	case bind.IP.Addr().IsUnspecified():
		host := "127.0.0.1"
		if bind.IP.Addr().Is6() {
			host = "::1"
		}
		a.address = net.JoinHostPort(host, fmt.Sprint(bind.IP.Port()))
	default:
		a.address = bind.IP.String()
	}
	return a, nil
}

// askPassword asks for a password on a terminal.
func askPassword(c *cobra.Command, ask string) (string, error) {
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", fmt.Errorf("no password: want it in $%s, or a terminal to ask", envPassword)
	}
	said, err := askSecrets(in, c.ErrOrStderr(), ask)
	if err != nil {
		return "", err
	}
	return said[0], nil
}

// context returns the one of the command; it has one when it is run by Execute.
func (c *call) context() context.Context {
	if ctx := c.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

func (c *call) wide() bool { return c.output == "wide" }

func (c *call) printf(format string, args ...any) { fmt.Fprintf(c.OutOrStdout(), format, args...) }

// show makes a call, decodes what comes into answer, and prints it: as it came for -o json, else by text.
func (c *call) show(r client.Request, answer any, text func()) error {
	res, err := c.api.Do(c.context(), r)
	if err != nil {
		return err
	}
	if err := c.api.Decode(r, res, answer); err != nil {
		return err
	}
	if c.output == "json" {
		return printJSON(c.OutOrStdout(), res.Body)
	}
	text()
	return nil
}

func (c *call) get(path string, answer any, text func()) error {
	return c.show(client.Request{Method: http.MethodGet, Path: path}, answer, text)
}

// printJSON prints an answer; one without body is {}.
func printJSON(out io.Writer, body []byte) error {
	if len(body) == 0 {
		body = []byte("{}\n")
	}
	_, err := out.Write(body)
	return err
}

// table prints columns, aligned. What strangers may have written is made printable.
type table struct{ w *tabwriter.Writer }

func (c *call) table(title ...string) *table {
	t := &table{tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)}
	t.row(title...)
	return t
}

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cell == "" {
			cell = "-"
		}
		cells[i] = human.Printable(cell)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) end() { _ = t.w.Flush() }

// confirm asks whether to do what is said, where a person is there to answer. Without one, the flag --yes has to have said yes.
func (c *call) confirm(what string, yes bool) error {
	if yes {
		return nil
	}
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fmt.Errorf("%s? There is no terminal to ask: want --yes", what)
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s? y/N ", what)
	line, _ := bufio.NewReader(in).ReadString('\n')
	if line = strings.ToLower(strings.TrimSpace(line)); line == "y" || line == "yes" {
		return nil
	}
	return exitError{errors.New("nothing is done"), exitRefused}
}

// printReport prints what a change changes.
func (c *call) printReport(r *client.Report) { writeReport(c.OutOrStdout(), r) }

func writeReport(w io.Writer, r *client.Report) {
	for _, ch := range r.Changes {
		parts := []string{ch.Kind, ch.Name, ch.Action}
		line := strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
		if ch.Detail != "" {
			line += ": " + ch.Detail
		}
		fmt.Fprintf(w, "%s\n", human.Printable(line))
	}
	if len(r.Changes) == 0 {
		fmt.Fprintf(w, "nothing changes\n")
	}
	for _, key := range r.NeedRestart {
		fmt.Fprintf(w, "%s needs a restart\n", human.Printable(key))
	}
}

// kindOf returns the content type of a configuration by the name of its file: TOML, unless it says JSON.
func kindOf(path string) string {
	if strings.EqualFold(filepath.Ext(path), ".json") {
		return "application/json"
	}
	return "application/toml"
}
