package cli

import (
	"fmt"
	"os"

	"awe4lb/internal/top"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newTop(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "top",
		Short: "watch it live, and drain, weigh and kill by keys",
		Long: `Top shows the running process live on a terminal: what it carries, its backends, pools, frontends, sessions and events. Keys
sort, filter, drain, enable, weigh and kill; each order is asked about before it is done. ? shows the keys.

NO_COLOR in the environment: no colours.`,
		Example: "  awe4lb top\n  awe4lb top --admin https://lb.internal:7070 --user ops",
		Args:    noArgs,
	}, func(c *call, _ []string) error {
		in, isFile := c.InOrStdin().(*os.File)
		out, isToo := c.OutOrStdout().(*os.File)
		if !isFile || !isToo || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) || os.Getenv("TERM") == "dumb" {
			return fmt.Errorf("top needs a terminal; for scripts there are 'awe4lb status' and 'awe4lb backends -o wide'")
		}
		// Asked before the screen is taken, so that what keeps it from working can be read.
		if err := c.api.Get(c.context(), "/api/v1/status", nil, nil); err != nil {
			return err
		}
		return top.Run(c.context(), c.api, in, out)
	})
	_ = c.Flags().MarkHidden("output")
	return c
}
