package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands about who sticks to which backend.

const persistencePath = "/api/v1/persistence"

type stick struct {
	Client  string  `json:"client"`
	Backend string  `json:"backend"`
	Idle    float64 `json:"idle_seconds"`
	Left    float64 `json:"left_seconds"`
}

type stickyPool struct {
	Pool       string `json:"pool"`
	Entries    int    `json:"entries"`
	MaxEntries int    `json:"max_entries"`
	Hits       uint64 `json:"hits"`
	Misses     uint64 `json:"misses"`
	Moves      uint64 `json:"moves"`
	Overflows  uint64 `json:"overflows"`
	Evictions  uint64 `json:"evictions"`
	Skipped    uint64 `json:"skipped"`
}

func newPersistence(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "persistence",
		Short: "which clients stick to which backends; look one up, forget some",
		Long: `Persistence lists the pools whose clients keep their backend: how many clients have one, how many there is room for, and what
became of those who came. 'persistence list' lists the clients, 'persistence get' looks one up.`,
		Example: "  awe4lb persistence\n  awe4lb persistence get web 10.1.2.3\n  awe4lb persistence forget web 10.1.2.3",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		var list struct {
			Pools []stickyPool `json:"pools"`
		}
		return c.get(persistencePath, &list, func() {
			if len(list.Pools) == 0 {
				c.printf("no pool has persistence\n")
				return
			}
			title := []string{"POOL", "CLIENTS", "ROOM", "HITS", "MISSES", "MOVES", "EVICTIONS"}
			if c.wide() {
				title = append(title, "OVERFLOWS", "SKIPPED")
			}
			t := c.table(title...)
			for _, p := range list.Pools {
				row := []string{p.Pool, fmt.Sprint(p.Entries), fmt.Sprint(p.MaxEntries), fmt.Sprint(p.Hits), fmt.Sprint(p.Misses), fmt.Sprint(p.Moves), fmt.Sprint(p.Evictions)}
				if c.wide() {
					row = append(row, fmt.Sprint(p.Overflows), fmt.Sprint(p.Skipped))
				}
				t.row(row...)
			}
			t.end()
		})
	})
	c.AddCommand(newPersistenceList(p), newPersistenceGet(p), newPersistenceForget(p), newPersistenceClear(p))
	return c
}

func newPersistenceList(p Program) *cobra.Command {
	var limit int
	var all bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "list POOL",
		Short: "the clients of a pool that have a backend",
		Long:  "List lists the clients of a pool that have a backend, in no order; page after page if --all says so (with -o json a document for\neach page).",
		Args:  wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error { return c.listSticks(args[0], limit, all) })
	c.Flags().IntVarP(&limit, "limit", "n", 100, "at most so many, up to 1000; with --all: a page")
	c.Flags().BoolVar(&all, "all", false, "page after page, to the end")
	c.ValidArgsFunction = completing(1, poolNames)
	return c
}

func (c *call) listSticks(pool string, limit int, all bool) error {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for first := true; ; first = false {
		var page struct {
			Clients []stick `json:"clients"`
			Next    string  `json:"next"`
		}
		err := c.show(client.Request{Method: http.MethodGet, Path: persistencePath + "/" + pool, Query: q}, &page, func() {
			if first && len(page.Clients) == 0 {
				c.printf("none\n")
				return
			}
			c.printSticks(page.Clients)
		})
		switch {
		case err != nil:
			return err
		case page.Next == "":
			return nil
		case !all:
			fmt.Fprintln(c.ErrOrStderr(), "there are more: --all, or a larger --limit")
			return nil
		}
		q.Set("cursor", page.Next)
	}
}

func (c *call) printSticks(list []stick) {
	t := c.table("CLIENT", "BACKEND", "IDLE", "LEFT")
	for _, s := range list {
		t.row(s.Client, s.Backend, human.Seconds(s.Idle), human.Seconds(s.Left))
	}
	t.end()
}

func newPersistenceGet(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "get POOL CLIENT",
		Short: "the backend that a client has",
		Long:  "Get says which backend the client of an address has, since when it has not come, and when it will be forgotten. Where prefixes\nstand for clients it is that of the address's prefix.",
		Args:  wants(cobra.ExactArgs(2)),
	}, func(c *call, args []string) error {
		var s stick
		return c.get(persistencePath+"/"+args[0]+"/"+args[1], &s, func() { c.printSticks([]stick{s}) })
	})
	c.ValidArgsFunction = completing(1, poolNames)
	return c
}

func newPersistenceForget(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "forget POOL CLIENT…",
		Short: "forget clients: they get any backend when they come again",
		Long:  "Forget forgets the backend of clients, by their addresses. Sessions that are open go on.",
		Args:  wants(cobra.MinimumNArgs(2)),
	}, func(c *call, args []string) error {
		for _, who := range args[1:] {
			err := c.show(client.Request{Method: http.MethodDelete, Path: persistencePath + "/" + args[0] + "/" + who}, nil, func() { c.printf("%s: forgotten\n", human.Printable(who)) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	c.ValidArgsFunction = completing(1, poolNames)
	return c
}

func newPersistenceClear(p Program) *cobra.Command {
	var yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "clear POOL",
		Short: "forget all clients of a pool",
		Long:  "Clear forgets the backends of all clients of a pool. It asks before it does. Sessions that are open go on.",
		Args:  wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error {
		if err := c.confirm("forget all clients of "+human.Printable(args[0]), yes); err != nil {
			return err
		}
		var n struct {
			Forgotten int `json:"forgotten"`
		}
		return c.show(client.Request{Method: http.MethodDelete, Path: persistencePath + "/" + args[0]}, &n, func() { c.printf("%s forgotten\n", Plural(n.Forgotten, "client")) })
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.ValidArgsFunction = completing(1, poolNames)
	return c
}
