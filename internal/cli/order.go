package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands that change what runs, and no configuration.

// drainPoll is how often drain --wait looks.
const drainPoll = 500 * time.Millisecond

func newDrain(p Program) *cobra.Command {
	var wait time.Duration
	c := remoteCommand(p, &cobra.Command{
		Use:   "drain POOL/BACKEND…",
		Short: "give a backend no new sessions; those it has go on",
		Long: `Drain takes backends out of use gently: they get no new sessions, and those they have go on. It holds over reloads until
'awe4lb enable'. With --wait it returns when none is open, or with 1 when the time is up.`,
		Example: "  awe4lb drain web/127.0.0.1:9001\n  awe4lb drain --wait 5m web/10.0.0.7:80 && ssh 10.0.0.7 reboot",
		Args:    wants(cobra.MinimumNArgs(1)),
	}, func(c *call, args []string) error {
		for _, arg := range args {
			if err := c.order(arg, map[string]any{"state": "drain"}); err != nil {
				return err
			}
		}
		deadline := time.Now().Add(wait)
		for _, arg := range args {
			if err := c.waitFor(arg, wait, deadline); err != nil {
				return err
			}
		}
		return nil
	})
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for the open sessions to end; 0: not at all")
	c.ValidArgsFunction = completing(0, backendNames)
	return c
}

// waitFor waits until a backend has nothing open.
func (c *call) waitFor(name string, wait time.Duration, deadline time.Time) error {
	for wait > 0 {
		var b client.Backend
		path, err := backendPath(name)
		if err != nil {
			return err
		}
		if err := c.api.Get(c.context(), path, nil, &b); err != nil {
			return err
		}
		if b.Open == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return exitError{fmt.Errorf("%s: %d still open after %v", name, b.Open, wait), exitRefused}
		}
		select {
		case <-c.context().Done():
			return c.context().Err()
		case <-time.After(drainPoll):
		}
	}
	return nil
}

func newMaintenance(p Program) *cobra.Command {
	return stateCommand(p, "maintenance", "take a backend out of use at once",
		"Maintenance takes backends out of use: they get no new sessions, and the pool's on_maintenance says what becomes of those\nthey have. It holds over reloads until 'awe4lb enable'.", "maintenance")
}

func newEnable(p Program) *cobra.Command {
	return stateCommand(p, "enable", "take back drain or maintenance of a backend",
		"Enable takes back drain and maintenance: backends are used again, as far as their checks allow.", "ready")
}

func stateCommand(p Program, use, short, long, state string) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:     use + " POOL/BACKEND…",
		Short:   short,
		Long:    long,
		Example: "  awe4lb " + use + " web/127.0.0.1:9001",
		Args:    wants(cobra.MinimumNArgs(1)),
	}, func(c *call, args []string) error {
		for _, arg := range args {
			if err := c.order(arg, map[string]any{"state": state}); err != nil {
				return err
			}
		}
		return nil
	})
	c.ValidArgsFunction = completing(0, backendNames)
	return c
}

func newWeight(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:     "weight POOL/BACKEND N|reset",
		Short:   "change the weight of a backend",
		Long:    "Weight gives a backend another weight, 0 to 1000, for new sessions; reset makes it what is configured. It holds over reloads.",
		Example: "  awe4lb weight web/127.0.0.1:9001 5\n  awe4lb weight web/127.0.0.1:9001 reset",
		Args:    wants(cobra.ExactArgs(2)),
	}, func(c *call, args []string) error {
		if args[1] == "reset" {
			return c.order(args[0], map[string]any{"weight": json.RawMessage("null")})
		}
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return fmt.Errorf("weight: got %q; want a number from 0 to 1000, or reset", args[1])
		}
		return c.order(args[0], map[string]any{"weight": n})
	})
	c.ValidArgsFunction = completing(1, backendNames)
	return c
}

// backendPath returns the path of POOL/BACKEND in the API.
func backendPath(name string) (string, error) {
	pool, address, err := splitBackend(name)
	return "/api/v1/pools/" + pool + "/backends/" + address, err
}

// order orders something of a backend and prints how it is then.
func (c *call) order(name string, body any) error {
	path, err := backendPath(name)
	if err != nil {
		return err
	}
	var b client.Backend
	return c.show(client.Request{Method: http.MethodPatch, Path: path, Body: body}, &b, func() {
		c.printf("%s: %s, weight %d, %d open\n", human.Printable(name), b.State, b.Weight, b.Open)
	})
}

func newKill(p Program) *cobra.Command {
	q := map[string]*string{}
	var all, dry, yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "kill ID…",
		Short: "end sessions now, by id or by a filter",
		Long: `Kill ends sessions and UDP flows at once: those with the ids, or those that all filters mean. With filters it says how many
that are and asks before it does it, unless --yes says so already.`,
		Example: "  awe4lb kill 1-eda5ce87\n  awe4lb kill --pool web --client 10.1.0.0/16 --dry-run\n  awe4lb kill --pool web --backend 127.0.0.1:9001 --yes",
	}, func(c *call, ids []string) error {
		o := client.KillOrder{Protocol: *q["protocol"], Frontend: *q["frontend"], Pool: *q["pool"], Backend: *q["backend"], Client: *q["client"], All: all}
		filtered := o != client.KillOrder{}
		switch {
		case filtered == (len(ids) > 0):
			return fmt.Errorf("want ids, or filters, or --all; and only one of these")
		case all && o != client.KillOrder{All: true}:
			return fmt.Errorf("--all is every session: want no filter beside it")
		case filtered:
			return c.killFiltered(o, dry, yes)
		case dry:
			return fmt.Errorf("--dry-run: want filters")
		}
		for _, id := range ids {
			err := c.show(client.Request{Method: http.MethodDelete, Path: "/api/v1/sessions/" + id}, nil, func() { c.printf("%s: ended\n", human.Printable(id)) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	filterFlags(c, q)
	c.Flags().BoolVar(&all, "all", false, "every session and flow")
	c.Flags().BoolVar(&dry, "dry-run", false, "only count them")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// killFiltered counts, asks, and ends.
func (c *call) killFiltered(o client.KillOrder, dry, yes bool) error {
	r := client.Request{Method: http.MethodPost, Path: "/api/v1/sessions/kill", Body: &o}
	var k client.Killed
	if dry {
		o.DryRun = true
		return c.show(r, &k, func() { c.printf("%s would end\n", Plural(k.Killed, "session")) })
	}
	if !yes {
		o.DryRun = true
		if err := c.api.Call(c.context(), r, &k); err != nil {
			return err
		}
		if err := c.confirm(fmt.Sprintf("end %s", Plural(k.Killed, "session")), false); err != nil {
			return err
		}
		o.DryRun = false
	}
	return c.show(r, &k, func() { c.printf("%s ended\n", Plural(k.Killed, "session")) })
}

// filterFlags adds the flags that say which sessions are meant.
func filterFlags(c *cobra.Command, q map[string]*string) {
	f := c.Flags()
	q["protocol"] = f.String("protocol", "", "tcp or udp")
	q["frontend"] = f.String("frontend", "", "of this `FRONTEND`")
	q["pool"] = f.String("pool", "", "of this `POOL`")
	q["backend"] = f.String("backend", "", "of the backend with this `ADDRESS`")
	q["client"] = f.String("client", "", "of clients in this `PREFIX`, or with this address")
	_ = c.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions([]string{"tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("pool", completing(0, poolNames))
	_ = c.RegisterFlagCompletionFunc("backend", completing(0, addresses))
	_ = c.RegisterFlagCompletionFunc("frontend", completeFrontends)
}

func poolFlag(c *cobra.Command, pool *string) {
	c.Flags().StringVar(pool, "pool", "", "of this `POOL`")
	_ = c.RegisterFlagCompletionFunc("pool", completing(0, poolNames))
}

func newReload(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "reload",
		Short: "have the process read its configuration again",
		Long:  "Reload has the process read its configuration again, as SIGHUP does, and says what changed. With a mistake in it nothing\nchanges: the mistakes are told, and the exit code is 1.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var r client.Report
		return c.show(client.Request{Method: http.MethodPost, Path: "/api/v1/reload"}, &r, func() {
			c.printf("configuration %d\n", r.Version)
			c.printReport(&r)
		})
	})
}

func newLogLevel(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:       "log-level [LEVEL]",
		Short:     "see or change the level of the log",
		Long:      "Log-level prints the level of the process's log, or changes it until the next reload: debug, info, warn or error.",
		Args:      wants(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"debug", "info", "warn", "error"},
	}, func(c *call, args []string) error {
		r := client.Request{Method: http.MethodGet, Path: "/api/v1/log"}
		if len(args) > 0 {
			r.Method, r.Body = http.MethodPut, map[string]string{"level": args[0]}
		}
		var l struct{ Level string }
		return c.show(r, &l, func() { c.printf("%s\n", l.Level) })
	})
	return c
}
