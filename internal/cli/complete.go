package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"awe4lb/internal/client"

	"github.com/spf13/cobra"
)

// Completion asks the running process. Where that does not answer at once, there is none: a shell must not hang on Tab.
const completeTimeout = time.Second

// loadForCompletion is Program.adminOf: cobra hands completions nothing but the command line. Set when the commands are made.
var loadForCompletion func(path string) (admin, error)

// completing returns a completion of at most n arguments (0: any number) by what names finds in the pools.
func completing(n int, names func(*client.PoolList) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var list client.PoolList
		if n > 0 && len(args) >= n || !asked(c, "/api/v1/pools", &list) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found := slices.DeleteFunc(names(&list), func(name string) bool {
			return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(name, a+"\t") })
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeFrontends(c *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	var list struct{ Frontends []client.Frontend }
	if asked(c, "/api/v1/frontends", &list) {
		for _, f := range list.Frontends {
			names = append(names, f.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func completeConfigs(c *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // a file
	}
	var list configList
	if asked(c, "/api/v1/configs", &list) {
		for _, each := range list.Configs {
			names = append(names, each.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNoFiles has Tab offer no files where c, and what is below it, takes none: shells offer them where nothing else is said.
func completeNoFiles(c *cobra.Command) {
	if c.ValidArgsFunction == nil && c.ValidArgs == nil && !c.HasSubCommands() && !strings.Contains(c.Use, "FILE") {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		completeNoFiles(sub)
	}
}

// asked asks the process that the flags on the command line mean.
func asked(c *cobra.Command, path string, answer any) bool {
	get := func(name string) string {
		if f := c.Flags().Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	r := remote{load: loadForCompletion, address: get("admin"), config: get("config"), tokenFile: get("token-file"), user: get("user"),
		ca: get("ca"), cert: get("cert"), key: get("key")}
	api, err := r.client(c, false)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	return api.Get(ctx, path, nil, answer) == nil
}

func poolNames(list *client.PoolList) (names []string) {
	for _, p := range list.Pools {
		names = append(names, p.Name)
	}
	return names
}

// backendNames returns POOL/BACKEND with the state as what shells show beside.
func backendNames(list *client.PoolList) (names []string) {
	for _, p := range list.Pools {
		for _, b := range p.Backends {
			names = append(names, p.Name+"/"+b.Address+"\t"+b.State)
		}
	}
	return names
}

func addresses(list *client.PoolList) (names []string) {
	for _, p := range list.Pools {
		for _, b := range p.Backends {
			names = append(names, b.Address+"\tof "+p.Name)
		}
	}
	return names
}
