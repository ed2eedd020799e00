package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands that change one frontend, pool or backend of what runs.

// outcome is what a change did, or would do.
type outcome struct {
	client.Report
	Warnings []string `json:"warnings"`
	Unsaved  bool     `json:"unsaved"`
	Text     string   `json:"text"` // of a dry run
}

// changeFlags are how a change is made.
type changeFlags struct {
	dry, yes, persist bool
	match             string
}

const changeHelp = `

It has the process try the change, shows what would change, in words and as lines of the configuration, asks unless --yes says
so already, and does it: all of it or, with a mistake, nothing. What somebody else changes between the question and the answer
is not overwritten: it is refused. The change is in memory and a reload drops it, unless --persist writes it back to the
configuration's file.`

// changeCommand is remoteCommand for a command that makes one change.
func changeCommand(p Program, c *cobra.Command, request func(c *call, args []string) (r client.Request, what string, err error)) *cobra.Command {
	var o changeFlags
	c.Long += changeHelp
	c = remoteCommand(p, c, func(c *call, args []string) error {
		r, what, err := request(c, args)
		if err != nil {
			return err
		}
		return c.change(r, what, o)
	})
	f := c.Flags()
	f.BoolVar(&o.dry, "dry-run", false, "show what would change, and do nothing")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.persist, "persist", false, "write it back to the configuration's file")
	f.StringVar(&o.match, "if-match", "", "only where what runs still has this `ETAG`, as a dry run shows it")
	c.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return c
}

// change shows what r would change, asks, and does it.
func (c *call) change(r client.Request, what string, o changeFlags) error {
	r.Query, r.Header = url.Values{}, http.Header{}
	if o.persist {
		r.Query.Set("persist", "true")
	}
	if o.match != "" {
		r.Header.Set("If-Match", quoted(o.match))
	}
	if !o.yes {
		seen, err := c.preview(r, o.dry)
		if err != nil || o.dry {
			return err
		}
		if err := c.confirm(what, false); err != nil {
			return err
		}
		r.Header.Set("If-Match", seen)
	}
	var done outcome
	return c.show(r, &done, func() {
		c.printf("configuration %d\n", done.Version)
		c.printReport(&done.Report)
		if done.Unsaved {
			c.printf("in memory only: a reload drops it\n")
		}
	})
}

// preview has r tried and prints what it would change, and returns the ETag of what it would change. The JSON of it is printed
// where nothing follows.
func (c *call) preview(r client.Request, alone bool) (etag string, err error) {
	running, err := c.api.Do(c.context(), client.Request{Method: http.MethodGet, Path: "/api/v1/config", Query: url.Values{"format": {"toml"}}})
	if err != nil {
		return "", err
	}
	etag = running.Header.Get("ETag")
	if r.Header = r.Header.Clone(); r.Header.Get("If-Match") == "" {
		r.Header.Set("If-Match", etag) // so that the lines are those that differ from what was read
	}
	r.Query = url.Values{"dry_run": {"true"}, "persist": r.Query["persist"]}
	if len(r.Query["persist"]) == 0 {
		r.Query.Del("persist")
	}
	res, err := c.api.Do(c.context(), r)
	if err != nil {
		return "", err
	}
	if alone && c.output == "json" {
		return etag, printJSON(c.OutOrStdout(), res.Body)
	}
	var would outcome
	if err := c.api.Decode(r, res, &would); err != nil {
		return "", err
	}
	for _, w := range would.Warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", human.Printable(w))
	}
	out := c.OutOrStdout()
	if c.output == "json" {
		out = c.ErrOrStderr() // the answer alone is for whoever reads JSON
	}
	printLines(out, lineDiff(string(running.Body), would.Text))
	writeReport(out, &would.Report)
	if alone {
		c.printf("etag %s\n", strings.Trim(etag, `"`))
	}
	return etag, nil
}

// kindOfText is kindOf where the name of the file may say nothing: no TOML begins with a brace.
func kindOfText(path string, text []byte) string {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return "application/json"
	}
	return kindOf(path)
}

func newFrontend(p Program) *cobra.Command { return tableCommand(p, "frontend", completeFrontends) }

func newPool(p Program) *cobra.Command { return tableCommand(p, "pool", completing(1, poolNames)) }

// tableCommand makes frontend and pool, which have the same commands for different tables.
func tableCommand(p Program, kind string, names cobra.CompletionFunc) *cobra.Command {
	c := &cobra.Command{
		Use:   kind,
		Short: "make, replace or delete a " + kind,
		Long: fmt.Sprintf(`Put makes or replaces a %[1]s of what runs: FILE has its table as it stands below [%[1]ss.NAME], as TOML or JSON. Delete removes one.
'awe4lb %[1]ss' lists those there are, 'awe4lb config get' prints their tables.`, kind),
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	path := "/api/v1/" + kind + "s/"
	put := changeCommand(p, &cobra.Command{
		Use:     "put NAME FILE",
		Short:   "make or replace a " + kind,
		Long:    fmt.Sprintf("Put makes or replaces a %[1]s. FILE has its table as it stands below [%[1]ss.NAME], as TOML or JSON; - is standard input, which\nneeds --yes or --dry-run.", kind),
		Example: fmt.Sprintf("  awe4lb %[1]s put blue blue.toml\n  awe4lb config get -o json | jq '.%[1]ss.web' | awe4lb %[1]s put blue - --dry-run", kind),
		Args:    wants(cobra.ExactArgs(2)),
	}, func(c *call, args []string) (client.Request, string, error) {
		text, err := readFile(args[1], c.InOrStdin())
		r := client.Request{Method: http.MethodPut, Path: path + args[0], Text: text, ContentType: kindOfText(args[1], text)}
		return r, fmt.Sprintf("make or replace the %s %s", kind, human.Printable(args[0])), err
	})
	put.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
		return names(c, args, part)
	}
	remove := changeCommand(p, &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"remove"},
		Short:   "remove a " + kind,
		Long:    "Delete removes a " + kind + " from what runs. Its sessions go on, unless the configuration says otherwise.",
		Args:    wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) (client.Request, string, error) {
		return client.Request{Method: http.MethodDelete, Path: path + args[0]}, fmt.Sprintf("remove the %s %s", kind, human.Printable(args[0])), nil
	})
	remove.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(c, args, part)
	}
	c.AddCommand(put, remove)
	return c
}

func newBackend(p Program) *cobra.Command {
	c := &cobra.Command{
		Use:   "backend",
		Short: "add a backend to a pool, or remove one",
		Long: `Add and remove change the backends that a pool has in the configuration. 'awe4lb drain' takes one out of use and leaves it
there.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newBackendAdd(p), newBackendRemove(p))
	return c
}

func newBackendAdd(p Program) *cobra.Command {
	var weight, priority, most int
	var zone string
	c := changeCommand(p, &cobra.Command{
		Use:     "add POOL/BACKEND",
		Short:   "add a backend to a pool",
		Long:    "Add adds a backend to a pool.",
		Example: "  awe4lb backend add web/10.0.0.7:80\n  awe4lb backend add web/10.0.0.7:80 --weight 2 --persist --yes",
		Args:    wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) (r client.Request, what string, err error) {
		pool, address, err := splitBackend(args[0])
		body := map[string]any{"address": address}
		for name, value := range map[string]any{"weight": weight, "priority": priority, "max_connections": most, "zone": zone} {
			if c.Flags().Changed(strings.ReplaceAll(name, "_", "-")) {
				body[name] = value
			}
		}
		return client.Request{Method: http.MethodPost, Path: "/api/v1/pools/" + pool + "/backends", Body: body},
			fmt.Sprintf("add %s to the pool %s", human.Printable(address), human.Printable(pool)), err
	})
	f := c.Flags()
	f.IntVar(&weight, "weight", 1, "share of new sessions, 0 to 1000")
	f.IntVar(&priority, "priority", 0, "tier, 0 to 255: the lowest with a usable backend serves")
	f.IntVar(&most, "max-connections", 0, "sessions at once; 0: no limit")
	f.StringVar(&zone, "zone", "", "where it is, for prefer_zone")
	c.ValidArgsFunction = completing(1, func(list *client.PoolList) (names []string) {
		for _, name := range poolNames(list) {
			names = append(names, name+"/")
		}
		return names
	})
	return c
}

func newBackendRemove(p Program) *cobra.Command {
	c := changeCommand(p, &cobra.Command{
		Use:     "remove POOL/BACKEND",
		Aliases: []string{"delete"},
		Short:   "remove a backend from a pool",
		Long:    "Remove removes a backend from a pool. What becomes of its sessions is on_removed of the pool: they go on, unless it says otherwise.",
		Example: "  awe4lb backend remove web/10.0.0.7:80 --dry-run",
		Args:    wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) (r client.Request, what string, err error) {
		pool, address, err := splitBackend(args[0])
		return client.Request{Method: http.MethodDelete, Path: "/api/v1/pools/" + pool + "/backends/" + address},
			fmt.Sprintf("remove %s from the pool %s", human.Printable(address), human.Printable(pool)), err
	})
	c.ValidArgsFunction = completing(1, backendNames)
	return c
}

// splitBackend returns the parts of POOL/BACKEND.
func splitBackend(name string) (pool, address string, err error) {
	pool, address, ok := strings.Cut(name, "/")
	if !ok || pool == "" || address == "" {
		return "", "", fmt.Errorf("got %q; want POOL/BACKEND, such as web/127.0.0.1:9001: 'awe4lb backends' lists them", name)
	}
	return pool, address, nil
}
