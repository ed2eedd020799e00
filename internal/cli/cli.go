// Package cli is the command line: the commands, their help, and the exit codes. What they do beside it is handed in by
// main.
package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"awe4lb/acl"
	"awe4lb/config"
	"awe4lb/tlsbridge/certs"

	"github.com/spf13/cobra"
)

// Program is what main hands in.
type Program struct {
	Version       string
	Revision      string
	DefaultConfig []byte // the awe4lb.toml of the source tree
	Load          func(path string) (*config.Config, error)
	Host          func(*config.Config) (lacks []error, notes []string) // what of it this host does not have, and what is odd
	Run           func(path string, ready func(Running)) error
}

// Running tells where a process listens.
type Running struct {
	Listeners []Listener
	Admin     string // "" when it is off
}

// Listener is an address a frontend listens on.
type Listener struct {
	Frontend, Protocol, Address string

	Certificate string // the file of the default certificate, where TLS ends; "" elsewhere
}

// listener returns the first listener of a protocol, with TLS or without, or one without address.
func (r *Running) listener(protocol string, tls bool) Listener {
	for _, l := range r.Listeners {
		if l.Protocol == protocol && (l.Certificate != "") == tls {
			return l
		}
	}
	return Listener{}
}

// The exit codes. They are part of the interface: docs/operations.md.
const (
	exitOK     = 0
	exitConfig = 1
	exitUsage  = 2
	exitBind   = 3
)

// exitError is an error with an exit code.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// BadConfig marks err as a mistake in the configuration.
func BadConfig(err error) error { return exitError{err, exitConfig} }

// CannotBind marks err as an address that could not be listened on.
func CannotBind(err error) error { return exitError{err, exitBind} }

// Execute runs the command that args name and returns the exit code.
func Execute(p Program, args []string) int {
	root := newRoot(p)
	root.SetArgs(args)
	c, err := root.ExecuteC()
	code := exitCodeOf(err)
	if code == exitOK {
		return code
	}
	if code == exitUsage {
		fmt.Fprintf(os.Stderr, "awe4lb: %v\nTry '%s --help'.\n", err, c.CommandPath())
		return code
	}
	var inFile config.Errors
	var named certs.Errors // files that it names
	switch {
	case errors.As(err, &inFile):
		fmt.Fprintf(os.Stderr, "%v\nawe4lb: %s\n", err, Plural(len(inFile), "mistake"))
	case errors.As(err, &named):
		fmt.Fprintf(os.Stderr, "%v\nawe4lb: %s\n", err, Plural(len(named), "mistake"))
	default:
		text := err.Error() // the mistakes, each on its line, then what they make
		lines := strings.LastIndexByte(text, '\n') + 1
		fmt.Fprintf(os.Stderr, "%sawe4lb: %s\n", text[:lines], text[lines:])
	}
	return code
}

// exitCodeOf returns the exit code for what a command returns.
func exitCodeOf(err error) int {
	var e exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	}
	return exitUsage // also cobra's own: a flag or command it does not know
}

// Plural returns a number with its noun: 1 mistake, 2 mistakes.
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

const rootHelp = `awe4lb balances TCP connections and UDP datagrams over backends.

It reads one TOML file, listens on the frontends in it, and relays each connection to a backend of a pool. Without a
command it does what 'awe4lb run' does. The commands that watch and change what runs speak with its admin, on
127.0.0.1:7070 unless --admin, --config or $AWE4LB_ADMIN says otherwise.

Start with 'awe4lb demo': it brings its own backends.`

const rootExample = `  awe4lb demo                          # see it work
  awe4lb check --config /etc/awe4lb.toml
  awe4lb run --config /etc/awe4lb.toml
  awe4lb top                           # watch it live
  awe4lb drain web/127.0.0.1:9001
  kill -HUP $(pidof awe4lb)            # reload`

func newRoot(p Program) *cobra.Command {
	var path string
	root := &cobra.Command{
		Use:           "awe4lb",
		Short:         "a layer-4 load balancer",
		Long:          rootHelp,
		Example:       rootExample,
		Args:          knownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return hintConfig(c, path, p.Run(path, nil)) },
	}
	configFlag(root, &path)
	loadForCompletion = p.adminOf
	group(root, "run", "Run it", newRun(p), newCheck(p), newDemo(p))
	group(root, "watch", "Watch what runs", newStatus(p), newTop(p), newFrontends(p), newPools(p), newBackends(p), newSessions(p), newEvents(p),
		newHealth(p), newDiscovery(p), newPersistence(p), newLimits(p), newCertificates(p), newShards(p), newHistory(p), newAudit(p), newWhoami(p))
	group(root, "change", "Change what runs", newDrain(p), newMaintenance(p), newEnable(p), newWeight(p), newKill(p), newBackend(p), newFrontend(p),
		newPool(p), newConfig(p), newReload(p), newLogLevel(p), newUpgrade(p), newShutdown(p))
	group(root, "tools", "Tools", newCert(p), newPassword(), newConvert(), newVersion(p))
	root.SetHelpCommandGroupID("tools")
	root.SetCompletionCommandGroupID("tools")
	root.AddCommand(newDemoBackend())
	completeNoFiles(root)
	return root
}

// knownCommand refuses what root is given beside flags: it is no command, or cobra had found it.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	root.SuggestionsMinimumDistance = 2 // letters that differ
	switch near := root.SuggestionsFor(args[0]); {
	case looksLikeFile(args[0]) && root.Flags().Lookup("config") != nil:
		hint = fmt.Sprintf(" (--config %s?)", args[0])
	case len(near) > 0:
		begins := slices.IndexFunc(near, func(name string) bool { return strings.HasPrefix(name, args[0]) })
		hint = fmt.Sprintf(" (did you mean %q?)", near[max(begins, 0)])
	}
	return fmt.Errorf("unknown command %q%s", args[0], hint)
}

// noArgs refuses what a command is given beside flags. A file is what people give most.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return knownCommand(c, args)
	}
	hint := ""
	if flag := c.Flags().Lookup("config"); looksLikeFile(args[0]) && flag != nil && !flag.Changed {
		hint = fmt.Sprintf(" (--config %s?)", args[0])
	}
	return fmt.Errorf("got the argument %q; want none%s", args[0], hint)
}

// wants is ok, and where that refuses says what the command is given.
func wants(ok cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if ok(c, args) == nil {
			return nil
		}
		return fmt.Errorf("got %s; want: %s", Plural(len(args), "argument"), strings.TrimSuffix(c.UseLine(), " [flags]"))
	}
}

func looksLikeFile(arg string) bool {
	return strings.HasSuffix(arg, ".toml") || strings.Contains(arg, "/")
}

// group adds commands that help lists together, in this order.
func group(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	cobra.EnableCommandSorting = false
	root.AddGroup(&cobra.Group{ID: id, Title: title + ":"})
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "awe4lb.toml", "configuration `FILE`")
	_ = c.MarkFlagFilename("config", "toml")
}

// hintConfig returns err, with what to do about it where there is no configuration and none was named.
func hintConfig(c *cobra.Command, path string, err error) error {
	var missing *fs.PathError
	if !c.Flags().Changed("config") && errors.As(err, &missing) && missing.Path == path && errors.Is(err, fs.ErrNotExist) {
		return exitError{fmt.Errorf("%w (--config FILE says where it is; 'awe4lb demo' needs none)", err), exitCodeOf(err)}
	}
	return err
}

func newRun(p Program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run",
		Short: "balance what the configuration says (the default command)",
		Long: `Run listens on the frontends of the configuration and relays until it is told to end.

Signals
  SIGHUP            read the configuration again; with a mistake in it, nothing changes;
                    when it comes because the terminal was closed: as SIGTERM
  SIGUSR1           open the log files anew, after rotating them
  SIGTERM, SIGINT   stop listening, let sessions finish for engine.drain_timeout, end; a second one ends at once

Exit codes
  0  ended as told        1  bad configuration
  2  bad usage            3  could not bind an address`,
		Example: "  awe4lb run --config /etc/awe4lb.toml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return hintConfig(c, path, p.Run(path, nil)) },
	}
	configFlag(c, &path)
	return c
}

func newCheck(p Program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "check",
		Short: "tell every mistake in a configuration",
		Long: `Check reads a configuration as run would and prints every mistake in it, one per line with file, line, what was found
and what is wanted, then what this host does not have: certificates and keys, addresses, interfaces, users, directories of log
files, and what sources of backends are configured with: secrets, programs, folders; and which ports you may not bind to. It opens no port and changes nothing; whether a port is free only run finds out. It exits with 0 when all is good,
else with 1.`,
		Example: "  awe4lb check --config awe4lb.toml && kill -HUP $(pidof awe4lb)",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.Load(path)
			if err != nil {
				return hintConfig(c, path, BadConfig(err))
			}
			host, notes := p.Host(cfg)
			for _, w := range slices.Concat(cfg.Warnings, certs.Notes(cfg), notes) {
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", w)
			}
			named := append(certs.Check(cfg), acl.Check(cfg)...)
			for _, err := range named {
				fmt.Fprintln(c.ErrOrStderr(), err)
			}
			for _, err := range host {
				if text := err.Error(); strings.HasPrefix(text, path+":") { // as most have, with the line
					fmt.Fprintln(c.ErrOrStderr(), text)
				} else {
					fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", path, text)
				}
			}
			if n := len(named) + len(host); n > 0 {
				return BadConfig(fmt.Errorf("the file is good, but not for this host: %s", Plural(n, "problem")))
			}
			backends := 0
			for _, pool := range cfg.Pools {
				backends += len(pool.Backends)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: good: %s, %s, %s\n", path, Plural(len(cfg.Frontends), "frontend"),
				Plural(len(cfg.Pools), "pool"), Plural(backends, "backend"))
			return nil
		},
	}
	configFlag(c, &path)
	return c
}

func printVersion(w io.Writer, p Program) {
	fields := []string{"awe4lb", p.Version}
	if p.Revision != "" {
		fields = append(fields, p.Revision)
	}
	fields = append(fields, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	fmt.Fprintln(w, strings.Join(fields, " "))
}
