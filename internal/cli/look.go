package cli

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands that look.

func newStatus(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:     "status",
		Short:   "how the process is: its frontends and pools in a few lines",
		Long:    "Status tells how the running process is: since when, with which configuration, and what its frontends and pools have open.",
		Example: "  awe4lb status\n  awe4lb status -o json | jq .sessions.open",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var s client.Status
		return c.get("/api/v1/status", &s, func() {
			c.printf("awe4lb %s, %s, up %s\n", s.Version, s.State, human.Seconds(s.Uptime))
			c.printf("config %d of %s, tried %s\n", s.Config.Version, human.Printable(s.Config.File), stamp(s.Config.LastTried))
			if !s.Config.LastOK {
				c.printf("the last reload was refused: %s\n", human.Printable(s.Config.Error))
			}
			c.printf("sessions %d of %d, flows %d of %d\n\n", s.Sessions.Open, s.Sessions.Limit, s.Flows.Open, s.Flows.Limit)
			c.printFrontends(s.Frontends)
			c.printf("\n")
			c.printPools(s.Pools, s.Retired)
		})
	})
}

func newFrontends(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "frontends",
		Short: "the frontends and what they have taken",
		Long:  "Frontends lists the frontends with their listeners, open sessions or flows, and totals since the start.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var list struct{ Frontends []client.Frontend }
		return c.get("/api/v1/frontends", &list, func() { c.printFrontends(list.Frontends) })
	})
}

func (c *call) printFrontends(list []client.Frontend) {
	title := []string{"FRONTEND", "PROTOCOL", "LISTENER", "POOL", "OPEN", "ACCEPTED", "C2B", "B2C"}
	if c.wide() {
		title = append(title, "LIMIT", "ROUTES", "ENDED")
	}
	t := c.table(title...)
	for _, f := range list {
		where := strings.Join(f.Listeners, ",")
		if !c.wide() && len(f.Listeners) > 1 {
			where = fmt.Sprintf("%s +%d", f.Listeners[0], len(f.Listeners)-1)
		} else if f.Retired {
			where = "(no longer configured)"
		}
		row := []string{f.Name, f.Protocol, where, f.Pool, fmt.Sprint(f.Open), fmt.Sprint(f.Accepted), human.Bytes(float64(f.Bytes.C2B)), human.Bytes(float64(f.Bytes.B2C))}
		if c.wide() {
			row = append(row, unlessZero(f.MaxConnections), fmt.Sprint(f.Routes), reasons(f.Ended))
		}
		t.row(row...)
	}
	t.end()
}

func newPools(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "pools",
		Short: "the pools and how many of their backends are up",
		Long:  "Pools lists the pools with their policy, their backends by state, open sessions, and what went wrong since the start.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var list client.PoolList
		return c.get("/api/v1/pools", &list, func() { c.printPools(list.Pools, list.Retired) })
	})
}

func (c *call) printPools(list []client.Pool, retired []client.Backend) {
	t := c.table("POOL", "POLICY", "UP", "DOWN", "OTHER", "OPEN", "RETRIES", "NO-BACKEND", "FULL")
	for _, p := range list {
		var up, down, other int
		var open int64
		for _, b := range p.Backends {
			switch b.State {
			case "up":
				up++
			case "down", "ejected":
				down++
			default:
				other++
			}
			open += b.Open
		}
		t.row(p.Name, p.Policy, fmt.Sprint(up), fmt.Sprint(down), fmt.Sprint(other), fmt.Sprint(open), fmt.Sprint(p.Retries), fmt.Sprint(p.NoBackend),
			fmt.Sprint(p.PoolLimit+p.BackendLimit))
	}
	t.end()
	if len(retired) > 0 {
		c.printf("%s no longer configured, with open sessions\n", Plural(len(retired), "backend"))
	}
}

func newBackends(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "backends [POOL]",
		Short: "the backends: state, weight, sessions, errors, health",
		Long: `Backends lists the backends of all pools, or of one: their state and since when, the weight in force, open sessions, totals
since the start, and what the health check says. -o wide listens for a second and has rates too.

States: up; down, by its check; ejected, for errors of its sessions; drain and maintenance, as ordered; disabled, with weight 0;
draining, no longer configured.`,
		Example: "  awe4lb backends web\n  awe4lb backends -o wide\n  awe4lb backends -o json | jq -r '.pools[].backends[] | select(.state != \"up\").address'",
		Args:    wants(cobra.MaximumNArgs(1)),
	}, func(c *call, args []string) error {
		var list client.PoolList
		path, answer := "/api/v1/pools", any(&list)
		if len(args) > 0 {
			list.Pools = make([]client.Pool, 1)
			path, answer = "/api/v1/pools/"+args[0], &list.Pools[0]
		}
		var failed error
		err := c.get(path, answer, func() { failed = c.printBackends(&list) })
		if err == nil {
			err = failed
		}
		return err
	})
	c.ValidArgsFunction = completing(1, poolNames)
	return c
}

// printBackends prints the backends of pools; wide, with the rates of a second.
func (c *call) printBackends(list *client.PoolList) error {
	var events client.EventList
	if err := c.api.Get(c.context(), "/api/v1/events", nil, &events); err != nil {
		return err
	}
	title := []string{"POOL", "BACKEND", "STATE", "SINCE", "WEIGHT", "OPEN", "CONNECTED", "ERRORS", "CHECK"}
	var rates map[string]client.SampleBackend
	if c.wide() {
		var err error
		if rates, err = c.rates(list); err != nil {
			return err
		}
		title = append(title, "NEW/s", "C2B/s", "B2C/s", "ERR/s", "P99", "C2B", "B2C", "PRIORITY", "LIMIT", "ZONE")
	}
	t := c.table(title...)
	row := func(b *client.Backend) {
		weight := fmt.Sprint(b.Weight)
		if b.Weight != b.Configured && b.State != "draining" {
			weight += fmt.Sprintf(" (%d)", b.Configured)
		}
		cells := []string{b.Pool, b.Address, b.State, sinceOf(b, events.Events), weight, fmt.Sprint(b.Open), fmt.Sprint(b.Connected), reasons(b.ConnectErrors), checkOf(b.Health)}
		if c.wide() {
			r := rates[b.Pool+"/"+b.Address]
			p99 := ""
			if r.ConnectP99 != nil {
				p99 = human.Latency(*r.ConnectP99)
			}
			cells = append(cells, human.Rate(r.New), human.Bytes(r.C2B), human.Bytes(r.B2C), human.Rate(r.Errors), p99, human.Bytes(float64(b.Bytes.C2B)),
				human.Bytes(float64(b.Bytes.B2C)), fmt.Sprint(b.Priority), unlessZero(b.MaxConnections), b.Zone)
		}
		t.row(cells...)
	}
	for i := range list.Pools {
		for j := range list.Pools[i].Backends {
			row(&list.Pools[i].Backends[j])
		}
	}
	for i := range list.Retired {
		row(&list.Retired[i])
	}
	t.end()
	return nil
}

// rates returns what goes through the backends of pools within one second, by POOL/BACKEND.
func (c *call) rates(list *client.PoolList) (map[string]client.SampleBackend, error) {
	rates, samples := map[string]client.SampleBackend{}, 0
	ctx, cancel := context.WithCancel(c.context())
	defer cancel()
	err := c.api.Watch(ctx, strings.Join(poolNames(list), ","), client.Watcher{Sample: func(s *client.Sample) {
		if samples++; samples < 2 || ctx.Err() != nil { // the first is of no time at all
			return
		}
		for _, p := range s.Pools {
			for _, b := range p.Backends {
				rates[p.Name+"/"+b.Address] = b
			}
		}
		cancel()
	}})
	if samples < 2 {
		return nil, err
	}
	return rates, nil
}

// sinceOf returns how long a backend has been in its state: by its check, or by the newest event that changed it.
func sinceOf(b *client.Backend, events []client.Event) string {
	since := time.Time{}
	if b.Health != nil {
		since = b.Health.Since
	}
	for _, e := range events { // the newest first
		if e.Pool == b.Pool && e.Backend == b.Address && e.What != "weight" {
			if e.Time.After(since) {
				since = e.Time
			}
			break
		}
	}
	if since.IsZero() {
		return ""
	}
	return human.Duration(time.Since(since))
}

func checkOf(h *client.Health) string {
	switch {
	case h == nil:
		return ""
	case h.State != "up" && h.LastError != "":
		return h.Kind + ": " + h.LastError
	}
	return h.Kind + " " + h.State
}

func newHealth(p Program) *cobra.Command {
	var pool string
	c := remoteCommand(p, &cobra.Command{
		Use:   "health",
		Short: "the health checks and their last results",
		Long: `Health lists what the health checks say: the state and since when, how many results in a row speak against it, and the last
probes, the newest to the right: + good, - bad, ? could not ask.`,
		Args: noArgs,
	}, func(c *call, _ []string) error {
		var list struct{ Checks []client.Check }
		return c.get("/api/v1/health", &list, func() {
			most := 20
			if c.wide() {
				most = 60
			}
			t := c.table("POOL", "BACKEND", "KIND", "STATE", "SINCE", "STREAK", "LAST", "TOOK", "WHY")
			for _, h := range list.Checks {
				if pool != "" && h.Pool != pool {
					continue
				}
				last, took := "", ""
				for _, r := range h.Last[max(len(h.Last)-most, 0):] {
					last += map[string]string{"good": "+", "bad": "-"}[r.Result]
					if r.Result == "unknown" {
						last += "?"
					}
					took = human.Latency(r.Took)
				}
				t.row(h.Pool, h.Backend, h.Kind, h.State, human.Duration(time.Since(h.Since)), fmt.Sprint(h.Streak), last, took, h.Why)
			}
			t.end()
		})
	})
	poolFlag(c, &pool)
	return c
}

func newDiscovery(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "discovery",
		Short: "where the backends of pools come from, and what became of it",
		Long: `Discovery lists the sources that pools have backends from: their state, how many backends of them are in use, and why the last
answer was not used. A list that is suddenly short is held back until it is confirmed; 'discovery accept' uses it now.`,
		Args: noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Pools []struct {
				Pool    string
				Sources []struct {
					Name, State string
					Since       time.Time
					Backends    int
					Held        *int
					Failures    int
					Error       string
					Reason      string
				}
			}
		}
		return c.get("/api/v1/discovery", &list, func() {
			t := c.table("POOL", "SOURCE", "STATE", "SINCE", "BACKENDS", "HELD", "FAILURES", "WHY")
			for _, d := range list.Pools {
				for _, s := range d.Sources {
					held := ""
					if s.Held != nil {
						held = fmt.Sprint(*s.Held)
					}
					why := s.Error
					if why == "" {
						why = s.Reason
					}
					t.row(d.Pool, s.Name, s.State, human.Duration(time.Since(s.Since)), fmt.Sprint(s.Backends), held, fmt.Sprint(s.Failures), why)
				}
			}
			t.end()
		})
	})
	post := func(use, short, long, done string) *cobra.Command {
		sub := remoteCommand(p, &cobra.Command{Use: use + " POOL", Short: short, Long: long, Args: wants(cobra.ExactArgs(1))}, func(c *call, args []string) error {
			return c.show(client.Request{Method: "POST", Path: "/api/v1/discovery/" + args[0] + "/" + use}, nil, func() { c.printf("%s: %s\n", args[0], done) })
		})
		sub.ValidArgsFunction = completing(1, poolNames)
		return sub
	}
	c.AddCommand(post("refresh", "ask the sources of a pool now", "Refresh asks the sources of a pool now, and does not wait for what they say: 'awe4lb discovery' tells.", "its sources are being asked"),
		post("accept", "use the lists of a pool that are held back", "Accept uses the lists of a pool that are held back because they are suddenly short.", "what was held back is in use"))
	return c
}

func newEvents(p Program) *cobra.Command {
	var follow bool
	var limit int
	c := remoteCommand(p, &cobra.Command{
		Use:   "events",
		Short: "what has happened to backends, the newest last",
		Long: `Events lists what has happened to backends: health, orders, weights, agents; the newest last. --follow goes on with what
happens from then on, also when the process is started anew, until it is interrupted; with -o json it has one event a line.`,
		Example: "  awe4lb events --limit 20\n  awe4lb events --follow -o json | jq -c 'select(.to == \"down\")'",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		if follow {
			return c.followEvents(limit)
		}
		var list client.EventList
		return c.get("/api/v1/events", &list, func() {
			for i := min(len(list.Events), limit) - 1; i >= 0; i-- {
				c.printEvent(&list.Events[i])
			}
		})
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().IntVarP(&limit, "limit", "n", 1000, "at most so many of those before")
	return c
}

func newSessions(p Program) *cobra.Command {
	q := map[string]*string{}
	var limit int
	var all bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "sessions",
		Short: "the sessions and UDP flows there are",
		Long: `Sessions lists sessions and UDP flows, those that all filters mean. Without --sort they come as they are found, and
page after page if --all says so (with -o json a document for each page); with it all are sorted, and the first --limit shown.`,
		Example: "  awe4lb sessions --pool web --sort bytes --limit 10\n  awe4lb sessions --client 10.1.0.0/16 --all -o json",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		v := url.Values{"limit": {strconv.Itoa(limit)}}
		for name, value := range q {
			if *value != "" {
				v.Set(name, *value)
			}
		}
		return c.listSessions(v, all)
	})
	filterFlags(c, q)
	q["sort"] = c.Flags().String("sort", "", "age, idle, bytes (the most first) or client")
	c.Flags().IntVarP(&limit, "limit", "n", 100, "at most so many, up to 1000; with --all: a page")
	c.Flags().BoolVar(&all, "all", false, "page after page, to the end")
	c.MarkFlagsMutuallyExclusive("all", "sort")
	_ = c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"age", "idle", "bytes", "client"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// listSessions prints a page, or with all of them page after page.
func (c *call) listSessions(q url.Values, all bool) error {
	title := []string{"ID", "PROTOCOL", "CLIENT", "FRONTEND", "POOL", "BACKEND", "STATE", "AGE", "IDLE", "C2B", "B2C"}
	if c.wide() {
		title = append(title, "TLS", "SNI")
	}
	for first := true; ; first = false {
		var page client.SessionList
		err := c.show(client.Request{Method: "GET", Path: "/api/v1/sessions", Query: q}, &page, func() {
			if first && len(page.Sessions) == 0 {
				c.printf("none\n")
				return
			}
			t := c.table(title...)
			for _, s := range page.Sessions {
				row := []string{s.ID, s.Protocol, s.Client, s.Frontend, s.Pool, s.Backend, s.State, human.Seconds(s.Age), human.Seconds(s.Idle),
					human.Bytes(float64(s.Bytes.C2B)), human.Bytes(float64(s.Bytes.B2C))}
				if c.wide() {
					row = append(row, s.TLS, s.SNI)
				}
				t.row(row...)
			}
			t.end()
		})
		if err != nil {
			return err
		}
		switch {
		case page.Total != nil && *page.Total > len(page.Sessions):
			fmt.Fprintf(c.ErrOrStderr(), "%d of %d\n", len(page.Sessions), *page.Total)
			return nil
		case page.Next == "":
			return nil
		case !all:
			fmt.Fprintln(c.ErrOrStderr(), "there are more: --all, or a larger --limit")
			return nil
		}
		q.Set("cursor", page.Next)
	}
}

// reasons returns the sum of counts by reason, with the reasons behind it.
func reasons(counts map[string]uint64) string {
	sum := uint64(0)
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		sum += counts[reason]
		parts = append(parts, fmt.Sprintf("%s %d", reason, counts[reason]))
	}
	if len(parts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(parts, ", "))
}

func unlessZero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
