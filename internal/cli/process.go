package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands about the running process as a whole: its shards, its last quarter of an hour, who has changed what, and its end.

func newShards(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "shards",
		Short: "what each shard has open, and when it could not accept",
		Long:  "Shards lists the shards: their sessions and flows now, and since the start how often they paused accepting, for a limit or for want of\ndescriptors, and what went wrong.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Shards []struct {
				Sessions     int    `json:"sessions"`
				Flows        int    `json:"flows"`
				AcceptPauses uint64 `json:"accept_pauses"`
				LimitPauses  uint64 `json:"limit_pauses"`
				AcceptErrors uint64 `json:"accept_errors"`
				Pipes        int    `json:"pipes"`
				Spliced      uint64 `json:"spliced_bytes"`
				AccessDrops  uint64 `json:"access_log_dropped"`
			} `json:"shards"`
		}
		return c.get("/api/v1/shards", &list, func() {
			t := c.table("SHARD", "SESSIONS", "FLOWS", "PAUSES", "AT-LIMIT", "ERRORS", "PIPES", "SPLICED", "LOG-DROPPED")
			for i, s := range list.Shards {
				t.row(strconv.Itoa(i), fmt.Sprint(s.Sessions), fmt.Sprint(s.Flows), fmt.Sprint(s.AcceptPauses), fmt.Sprint(s.LimitPauses),
					fmt.Sprint(s.AcceptErrors), fmt.Sprint(s.Pipes), human.Bytes(float64(s.Spliced)), fmt.Sprint(s.AccessDrops))
			}
			t.end()
		})
	})
}

func newHistory(p Program) *cobra.Command {
	var limit int
	c := remoteCommand(p, &cobra.Command{
		Use:   "history",
		Short: "the last quarter of an hour, in steps of five seconds",
		Long:  "History prints what the charts of the page show: sessions, flows, rates and the time to connect in the last quarter of an hour, a line\nfor each step, the newest last.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var h struct {
			Step   float64   `json:"step_seconds"`
			End    time.Time `json:"end"`
			Series struct {
				Sessions []int64    `json:"sessions"`
				Flows    []int64    `json:"flows"`
				New      []float64  `json:"new_per_second"`
				C2B      []float64  `json:"c2b"`
				B2C      []float64  `json:"b2c"`
				Errors   []float64  `json:"errors_per_second"`
				P50      []*float64 `json:"connect_p50"`
				P99      []*float64 `json:"connect_p99"`
			} `json:"series"`
		}
		latency := func(s *float64) string {
			if s == nil {
				return ""
			}
			return human.Latency(*s)
		}
		return c.get("/api/v1/history", &h, func() {
			s, n := h.Series, len(h.Series.Sessions)
			if n == 0 {
				c.printf("nothing yet: the first step ends %s after the start\n", human.Seconds(h.Step))
				return
			}
			t := c.table("TIME", "SESSIONS", "FLOWS", "NEW/s", "REFUSED/s", "C2B/s", "B2C/s", "P50", "P99")
			for i := max(0, n-limit); i < n; i++ {
				at := h.End.Add(-time.Duration(float64(n-1-i) * h.Step * float64(time.Second)))
				t.row(at.UTC().Format("15:04:05"), fmt.Sprint(s.Sessions[i]), fmt.Sprint(s.Flows[i]), human.Rate(s.New[i]), human.Rate(s.Errors[i]),
					human.Bytes(s.C2B[i]), human.Bytes(s.B2C[i]), latency(s.P50[i]), latency(s.P99[i]))
			}
			t.end()
		})
	})
	c.Flags().IntVarP(&limit, "limit", "n", 180, "at most so many of the newest")
	return c
}

func newAudit(p Program) *cobra.Command {
	var limit int
	var failed bool
	c := remoteCommand(p, &cobra.Command{
		Use:     "audit",
		Short:   "who has changed something, or tried to, the newest last",
		Long:    "Audit lists the last calls that changed something, or tried to: when, by whom, from where, and with what success; the newest last. It is\nkept in memory: the log of the process has all of it.",
		Example: "  awe4lb audit --limit 20\n  awe4lb audit --failed",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Calls []struct {
				Time   time.Time `json:"time"`
				Who    string    `json:"who"`
				From   string    `json:"from"`
				Method string    `json:"method"`
				Path   string    `json:"path"`
				Status int       `json:"status"`
				Error  string    `json:"error"`
			} `json:"calls"`
		}
		return c.get("/api/v1/audit", &list, func() {
			var rows [][]string
			for _, e := range list.Calls {
				if len(rows) < limit && (!failed || e.Status >= 400) {
					rows = append(rows, []string{e.Time.UTC().Format("2006-01-02 15:04:05"), e.Who, e.From, strconv.Itoa(e.Status), e.Method, e.Path, e.Error})
				}
			}
			if len(rows) == 0 {
				c.printf("none\n")
				return
			}
			t := c.table("TIME", "WHO", "FROM", "STATUS", "METHOD", "PATH", "ERROR")
			for i := len(rows) - 1; i >= 0; i-- {
				t.row(rows[i]...)
			}
			t.end()
		})
	})
	c.Flags().IntVarP(&limit, "limit", "n", 1000, "at most so many of the newest")
	c.Flags().BoolVar(&failed, "failed", false, "only those that were refused")
	return c
}

func newWhoami(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "whoami",
		Short: "who one is for the process, and what one may do",
		Long:  "Whoami says as whom the process takes the credentials of the flags and the environment, and their role: none, read, operate or configure.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var me struct{ Name, How, Role string }
		return c.get("/api/v1/me", &me, func() {
			who := me.How
			if me.Name != "" {
				who += ":" + me.Name
			}
			c.printf("%s, role %s\n", human.Printable(who), me.Role)
		})
	})
}

// endPoll is how often shutdown --wait looks.
const endPoll = 200 * time.Millisecond

func newShutdown(p Program) *cobra.Command {
	var yes bool
	var wait time.Duration
	c := remoteCommand(p, &cobra.Command{
		Use:   "shutdown",
		Short: "drain the process and end it, as SIGTERM does",
		Long: `Shutdown has the process listen no more, let its sessions finish within engine.drain_timeout, and end. It says how many sessions
there are and asks before it does. With --wait it returns when the process has ended, or with 1 when the time is up. A service manager
may start it anew.`,
		Example: "  awe4lb shutdown --yes --wait 1m",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		if !yes {
			var s client.Status
			if err := c.api.Get(c.context(), "/api/v1/status", nil, &s); err != nil {
				return err
			}
			what := fmt.Sprintf("end the process at %s, with %s and %s", c.api.Address(), Plural(int(s.Sessions.Open), "session"), Plural(int(s.Flows.Open), "flow"))
			if err := c.confirm(what, false); err != nil {
				return err
			}
		}
		var before struct{ Started time.Time }
		if wait > 0 {
			if err := c.api.Get(c.context(), "/api/v1/version", nil, &before); err != nil {
				return err
			}
		}
		var d struct {
			Sessions int     `json:"sessions"`
			Flows    int     `json:"flows"`
			Timeout  float64 `json:"timeout_seconds"`
		}
		err := c.show(client.Request{Method: http.MethodPost, Path: "/api/v1/drain"}, &d, func() {
			c.printf("draining: %s and %s have %s to finish\n", Plural(d.Sessions, "session"), Plural(d.Flows, "flow"), human.Seconds(d.Timeout))
		})
		if err != nil || wait <= 0 {
			return err
		}
		return c.waitForEnd(before.Started, wait)
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for the process to end; 0: not at all")
	return c
}

// waitForEnd waits until the process that was started then does not answer any more: nobody does, or another one.
func (c *call) waitForEnd(started time.Time, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(c.context(), wait)
	defer cancel()
	for {
		var v struct{ Started time.Time }
		err := c.api.Get(ctx, "/api/v1/version", nil, &v)
		var unreachable *client.Unreachable
		switch {
		case ctx.Err() != nil:
			return exitError{fmt.Errorf("it has not ended after %v", wait), exitRefused}
		case errors.As(err, &unreachable):
			return nil
		case err != nil:
			return err
		case !v.Started.Equal(started):
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(endPoll):
		}
	}
}

func newUpgrade(p Program) *cobra.Command {
	var yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "upgrade",
		Short: "start the program that brings a new version",
		Long:  "Upgrade has the process start the program that admin.upgrade of its configuration names, which is to bring a new version and start it.\nIt asks before it does, and does not wait: 'awe4lb version --running' tells what runs.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		if err := c.confirm("start the upgrade of the process at "+c.api.Address(), yes); err != nil {
			return err
		}
		var u struct {
			Program string `json:"program"`
			PID     int    `json:"pid"`
		}
		return c.show(client.Request{Method: http.MethodPost, Path: "/api/v1/upgrade"}, &u, func() {
			c.printf("%s runs, as process %d; the log of awe4lb says what it says\n", human.Printable(u.Program), u.PID)
		})
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func newVersion(p Program) *cobra.Command {
	var running bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "version",
		Short: "print the version, of this program or of what runs",
		Long:  "Version prints the version of this program; with --running, or when it is said whom to ask, that of the running process.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var v struct {
			Version  string    `json:"version"`
			Revision string    `json:"revision"`
			Go       string    `json:"go"`
			Started  time.Time `json:"started"`
		}
		return c.get("/api/v1/version", &v, func() {
			line := "awe4lb " + v.Version
			if v.Revision != "" {
				line += " " + v.Revision
			}
			c.printf("%s %s, started %s\n", human.Printable(line), human.Printable(v.Go), stamp(v.Started))
		})
	})
	c.Flags().BoolVar(&running, "running", false, "of the running process")
	ask := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if f := c.Flags(); running || f.Changed("admin") || f.Changed("config") {
			return ask(c, args)
		}
		if output := c.Flags().Lookup("output").Value.String(); output != "text" {
			return fmt.Errorf("--output %s: want --running beside it", output)
		}
		printVersion(c.OutOrStdout(), p)
		return nil
	}
	return c
}
