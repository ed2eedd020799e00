package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"awe4lb/internal/client"

	"github.com/spf13/cobra"
)

// The commands about limits: which there are, how near they are, and who is near them.

type limit struct {
	Scope string  `json:"scope"`
	Name  string  `json:"name"`
	Limit string  `json:"limit"`
	Value int64   `json:"value"`
	Now   *int64  `json:"now"`
	Hits  *uint64 `json:"hits"`
}

func newLimits(p Program) *cobra.Command {
	var met bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "limits",
		Short: "the limits that are set, how near they are, and how often they were met",
		Long: `Limits lists the limits that are set for the process, frontends, pools and backends: their value, what there is of it now, and
how often somebody met them since the start. --met leaves those that were met or are full now.

'limits sources' says who is nearest to what one source may have.`,
		Example: "  awe4lb limits --met\n  awe4lb limits sources --frontend web",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Limits []limit `json:"limits"`
		}
		return c.get("/api/v1/limits", &list, func() {
			t, n := c.table("SCOPE", "NAME", "LIMIT", "VALUE", "NOW", "FULL", "HITS"), 0
			for _, l := range list.Limits {
				if met && !l.isMet() {
					continue
				}
				now, full, hits := "", "", ""
				if l.Now != nil {
					now, full = fmt.Sprint(*l.Now), fmt.Sprintf("%d%%", 100**l.Now/l.Value)
				}
				if l.Hits != nil {
					hits = fmt.Sprint(*l.Hits)
				}
				t.row(l.Scope, l.Name, l.Limit, fmt.Sprint(l.Value), now, full, hits)
				n++
			}
			if n > 0 {
				t.end()
			} else if met {
				c.printf("no limit was met\n")
			}
		})
	})
	c.Flags().BoolVar(&met, "met", false, "only those that were met, or are full now")
	c.AddCommand(newLimitsSources(p))
	return c
}

func (l *limit) isMet() bool {
	return l.Hits != nil && *l.Hits > 0 || l.Now != nil && *l.Now >= l.Value
}

func newLimitsSources(p Program) *cobra.Command {
	var frontend string
	var limit int
	c := remoteCommand(p, &cobra.Command{
		Use:   "sources",
		Short: "who is nearest to what one source may have",
		Long: `Sources lists the sources, addresses or prefixes, that are nearest to max_connections_per_source or udp.max_flows_per_source of
a frontend, the nearest first. A source at its limit gets room when its sessions end: 'awe4lb kill --client' ends them. Who is over
a rate is not known by name: rates are kept by hashes.`,
		Example: "  awe4lb limits sources --limit 10\n  awe4lb kill --frontend web --client 203.0.113.7",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Sources []struct {
				Frontend string `json:"frontend"`
				Source   string `json:"source"`
				Open     int    `json:"open"`
				Limit    int    `json:"limit"`
			} `json:"sources"`
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		if frontend != "" {
			q.Set("frontend", frontend)
		}
		return c.show(client.Request{Method: http.MethodGet, Path: "/api/v1/limits/sources", Query: q}, &list, func() {
			if len(list.Sources) == 0 {
				c.printf("none\n")
				return
			}
			t := c.table("FRONTEND", "SOURCE", "OPEN", "LIMIT", "FULL")
			for _, s := range list.Sources {
				t.row(s.Frontend, s.Source, fmt.Sprint(s.Open), fmt.Sprint(s.Limit), fmt.Sprintf("%d%%", 100*s.Open/s.Limit))
			}
			t.end()
		})
	})
	c.Flags().StringVar(&frontend, "frontend", "", "of this `FRONTEND`")
	c.Flags().IntVarP(&limit, "limit", "n", 100, "at most so many, up to 1000")
	_ = c.RegisterFlagCompletionFunc("frontend", completeFrontends)
	return c
}
