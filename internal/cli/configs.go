package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	"github.com/spf13/cobra"
)

// The commands about the configurations that a process keeps.

const configsPath = "/api/v1/configs"

type configList struct {
	Active  string       `json:"active"`
	Stopped bool         `json:"stopped"`
	Unsaved bool         `json:"unsaved"`
	Configs []configInfo `json:"configs"`
}

type configInfo struct {
	Name     string    `json:"name"`
	Size     int       `json:"size"`
	Changed  time.Time `json:"changed"`
	ETag     string    `json:"etag"`
	Active   bool      `json:"active"`
	Mistakes int       `json:"mistakes"`
}

type verdict struct {
	OK       bool             `json:"ok"`
	Errors   []client.Mistake `json:"errors"`
	Warnings []string         `json:"warnings"`
	client.Report
}

type configVersion struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	Size    int       `json:"size"`
}

func newConfig(p Program) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "see, try, apply and roll back configurations",
		Long: `Config works on the configurations that the running process keeps, each under a name; main is the file it was started with.

Apply does what is usual: it shows what FILE would change, asks, stores it and has it run. Diff and validate change nothing.
Put, select and rollback are the steps by themselves. Whoever stores says which version they have seen, so that two people
cannot overwrite each other. FILE may be -, standard input; it is TOML, or JSON where its name ends in .json.`,
		Example: "  awe4lb config get >awe4lb.toml\n  awe4lb config diff awe4lb.toml\n  awe4lb config apply awe4lb.toml\n  awe4lb config history\n  awe4lb config rollback 3",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigList(p), newConfigGet(p), newConfigPut(p), newConfigTry(p, "validate"), newConfigTry(p, "diff"), newConfigApply(p),
		newConfigSelect(p), newConfigHistory(p), newConfigRollback(p), newConfigDelete(p), newConfigStop(p))
	return c
}

func newConfigList(p Program) *cobra.Command {
	return remoteCommand(p, &cobra.Command{
		Use:   "list",
		Short: "the configurations there are",
		Long:  "List prints the configurations that are kept: which one runs, when each was changed, and how many mistakes are in it.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		var list configList
		return c.get(configsPath, &list, func() {
			t := c.table("NAME", "STATE", "SIZE", "CHANGED", "MISTAKES", "ETAG")
			for _, i := range list.Configs {
				state := ""
				switch {
				case i.Active && list.Stopped:
					state = "stopped"
				case i.Active && list.Unsaved:
					state = "runs, changed in memory"
				case i.Active:
					state = "runs"
				}
				t.row(i.Name, state, human.Bytes(float64(i.Size)), stamp(i.Changed), unlessZero(i.Mistakes), i.ETag)
			}
			t.end()
		})
	})
}

func newConfigGet(p Program) *cobra.Command {
	var version int
	c := remoteCommand(p, &cobra.Command{
		Use:   "get [NAME]",
		Short: "print a configuration, or the one that runs",
		Long: `Get prints the configuration that runs, without its secrets; or one that is kept, whole for whoever may change it. With
--version it prints an earlier one. -o json prints it as JSON.`,
		Args: wants(cobra.MaximumNArgs(1)),
	}, func(c *call, args []string) error {
		path := "/api/v1/config"
		if len(args) > 0 {
			path = configsPath + "/" + args[0]
		}
		if version > 0 && len(args) == 0 {
			return errors.New("--version: want the NAME of which")
		} else if version > 0 {
			path += "/history/" + strconv.Itoa(version)
		}
		format := "toml"
		if c.output == "json" {
			format = "json"
		}
		res, err := c.api.Do(c.context(), client.Request{Method: http.MethodGet, Path: path, Query: url.Values{"format": {format}}})
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(res.Body)
		return err
	})
	c.Flags().IntVar(&version, "version", 0, "the version `N` that 'config history' lists")
	c.ValidArgsFunction = completeConfigs
	return c
}

func newConfigPut(p Program) *cobra.Command {
	var match string
	var create bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "put NAME FILE",
		Short: "store a configuration, and run nothing",
		Long: `Put stores FILE under a name; it does not run before it is selected. With --if-match it does so only where what is stored
still has that ETag, as 'config list' shows it; with --create only where the name is new.`,
		Args: wants(cobra.ExactArgs(2)),
	}, func(c *call, args []string) error {
		text, err := readFile(args[1], c.InOrStdin())
		if err != nil {
			return err
		}
		header := http.Header{}
		if match != "" {
			header.Set("If-Match", quoted(match))
		} else if create {
			header.Set("If-None-Match", "*")
		}
		var i configInfo
		err = c.show(client.Request{Method: http.MethodPut, Path: configsPath + "/" + args[0], Text: text, ContentType: kindOf(args[1]), Header: header}, &i, func() {
			c.printf("%s: stored, %d bytes, etag %s\n", human.Printable(i.Name), i.Size, i.ETag)
			if i.Mistakes > 0 {
				c.printf("it has %s: 'awe4lb config validate --name %s' tells them\n", Plural(i.Mistakes, "mistake"), human.Printable(i.Name))
			}
		})
		if p := (*client.Problem)(nil); errors.As(err, &p) {
			for j := range p.Errors {
				p.Errors[j].Message = inFile(p.Errors[j], args[1:])
			}
		}
		return err
	})
	c.Flags().StringVar(&match, "if-match", "", "only where it still has this `ETAG`")
	c.Flags().BoolVar(&create, "create", false, "only where it is new")
	c.MarkFlagsMutuallyExclusive("if-match", "create")
	c.ValidArgsFunction = completeConfigs
	return c
}

// nameFlag adds the flag that says which configuration is meant.
func nameFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "name", "", "the configuration `NAME`; default: the one that runs")
	_ = c.RegisterFlagCompletionFunc("name", func(c *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
		return completeConfigs(c, nil, part)
	})
}

// newConfigTry makes diff and validate, which ask the same and tell other parts of the answer.
func newConfigTry(p Program, use string) *cobra.Command {
	var name string
	var code bool
	diff := use == "diff"
	c := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "tell the mistakes that FILE has for the running process",
		Long: `Validate has the process check FILE, as it would if FILE ran under the name: every mistake, and warnings. It knows what
'awe4lb check' cannot: addresses that are taken, and what may not come by the API. Without FILE it checks what is stored.`,
		Args: wants(cobra.MaximumNArgs(1)),
	}
	if diff {
		c.Use, c.Short = "diff [FILE]", "tell what would change if FILE ran"
		c.Long = `Diff has the process tell what it would do if FILE ran under the name: listeners bound, backends added, sessions drained.
Nothing is done. Without FILE it is what is stored. With --exit-code it exits with 1 when something would change.`
	}
	c = remoteCommand(p, c, func(c *call, args []string) error {
		r, err := c.tryRequest(name, args)
		if err != nil {
			return err
		}
		var v verdict
		err = c.show(r, &v, func() {
			for _, w := range v.Warnings {
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", human.Printable(w))
			}
			switch {
			case !v.OK:
			case diff:
				c.printReport(&v.Report)
			default:
				c.printf("good: %s\n", Plural(len(v.Changes), "change"))
			}
		})
		switch {
		case err != nil:
			return err
		case !v.OK:
			return v.refusal(args, c.output == "json")
		case code && len(v.Changes) > 0:
			return exitError{errors.New("it differs from what runs"), exitRefused}
		}
		return nil
	})
	nameFlag(c, &name)
	if diff {
		c.Flags().BoolVar(&code, "exit-code", false, "exit with 1 when something would change")
	}
	return c
}

// refusal returns the mistakes of v, as an error, in what was sent from the file of args, if there is one; brief, where they
// have been printed.
func (v *verdict) refusal(args []string, brief bool) error {
	var b strings.Builder
	for _, m := range v.Errors {
		if !brief {
			b.WriteString(human.Printable(inFile(m, args)) + "\n")
		}
	}
	b.WriteString(Plural(len(v.Errors), "mistake"))
	return exitError{errors.New(b.String()), exitRefused}
}

// inFile returns the line that tells m, with the file of args in place of the one that the process would have it in: the line
// number is that of the text that was sent. Files that a configuration names keep their names.
func inFile(m client.Mistake, args []string) string {
	own := m.Key != "" || filepath.Ext(m.File) == ".toml"
	if rest, ok := strings.CutPrefix(m.Message, m.File+":"); ok && own && m.File != "" && len(args) > 0 && args[0] != "-" {
		return args[0] + ":" + rest
	}
	return m.Message
}

// tryRequest returns the call that tries the file of args, or what is stored.
func (c *call) tryRequest(name string, args []string) (client.Request, error) {
	r := client.Request{Method: http.MethodPost}
	if len(args) > 0 {
		text, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return r, err
		}
		r.Text, r.ContentType = text, kindOf(args[0])
	}
	name, err := c.configName(name)
	r.Path = configsPath + "/" + name + "/validate"
	return r, err
}

// configName returns name, or that of the configuration that runs.
func (c *call) configName(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	var list configList
	err := c.api.Get(c.context(), configsPath, nil, &list)
	return list.Active, err
}

func newConfigApply(p Program) *cobra.Command {
	var name string
	var yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "apply FILE",
		Short: "show what FILE changes, ask, store it and run it",
		Long: `Apply tries FILE, shows what it would change, asks unless --yes says so already, stores it under the name and has it run: all
of it or, with a mistake, nothing. If somebody else has stored another version meanwhile, it is refused.`,
		Example: "  awe4lb config apply awe4lb.toml\n  awe4lb config apply --name blue --yes blue.toml",
		Args:    wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error { return c.applyConfig(name, args, yes) })
	nameFlag(c, &name)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (c *call) applyConfig(name string, args []string, yes bool) error {
	var list configList
	if err := c.api.Get(c.context(), configsPath, nil, &list); err != nil {
		return err
	}
	if name == "" {
		name = list.Active
	}
	try, err := c.tryRequest(name, args)
	if err != nil {
		return err
	}
	var v verdict
	if err := c.api.Call(c.context(), try, &v); err != nil {
		return err
	}
	if !v.OK {
		return v.refusal(args, false)
	}
	for _, w := range v.Warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", human.Printable(w))
	}
	if !yes {
		c.printReport(&v.Report)
	}
	if err := c.confirm(fmt.Sprintf("run it as %s", human.Printable(name)), yes); err != nil {
		return err
	}
	header := http.Header{"If-None-Match": {"*"}}
	for _, i := range list.Configs {
		if i.Name == name {
			header = http.Header{"If-Match": {quoted(i.ETag)}}
		}
	}
	stored, err := c.api.Do(c.context(), client.Request{Method: http.MethodPut, Path: configsPath + "/" + name, Text: try.Text, ContentType: try.ContentType, Header: header})
	if err != nil {
		return err
	}
	return c.runConfig(name, http.Header{"If-Match": {stored.Header.Get("ETag")}})
}

// runConfig has a stored configuration run.
func (c *call) runConfig(name string, header http.Header) error {
	var r client.Report
	return c.show(client.Request{Method: http.MethodPost, Path: configsPath + "/" + name + "/select", Header: header}, &r, func() {
		c.printf("%s runs, as configuration %d\n", human.Printable(name), r.Version)
		c.printReport(&r)
	})
}

func newConfigSelect(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "select NAME",
		Short: "run a configuration that is stored",
		Long:  "Select has a stored configuration run, now and after the next start, and says what changed. 'config diff --name NAME' tells\nbefore.",
		Args:  wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error { return c.runConfig(args[0], nil) })
	c.ValidArgsFunction = completeConfigs
	return c
}

func newConfigHistory(p Program) *cobra.Command {
	c := remoteCommand(p, &cobra.Command{
		Use:   "history [NAME]",
		Short: "the versions of a configuration that are kept",
		Long:  "History lists the earlier versions of a configuration, by default of the one that runs; 'config get --version' prints one.",
		Args:  wants(cobra.MaximumNArgs(1)),
	}, func(c *call, args []string) error {
		name, err := c.configName(strings.Join(args, ""))
		if err != nil {
			return err
		}
		var list []configVersion
		return c.get(configsPath+"/"+name+"/history", &list, func() {
			t := c.table("VERSION", "TIME", "WHO", "SIZE")
			for _, v := range list {
				t.row(strconv.Itoa(v.Version), stamp(v.Time), v.Who, human.Bytes(float64(v.Size)))
			}
			t.end()
		})
	})
	c.ValidArgsFunction = completeConfigs
	return c
}

func newConfigRollback(p Program) *cobra.Command {
	var name string
	c := remoteCommand(p, &cobra.Command{
		Use:   "rollback VERSION",
		Short: "store an earlier version anew, and run it if the configuration runs",
		Long:  "Rollback makes an earlier version of a configuration its newest. If the configuration runs, that version runs then.",
		Args:  wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return fmt.Errorf("VERSION: got %q; want a number that 'config history' lists", args[0])
		}
		name, err := c.configName(name)
		if err != nil {
			return err
		}
		var r client.Report
		return c.show(client.Request{Method: http.MethodPost, Path: configsPath + "/" + name + "/rollback", Body: map[string]int{"version": n}}, &r, func() {
			c.printf("%s: version %d is the newest\n", human.Printable(name), n)
			c.printReport(&r)
		})
	})
	nameFlag(c, &name)
	return c
}

func newConfigDelete(p Program) *cobra.Command {
	var yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "delete NAME",
		Short: "delete a configuration that does not run, with its history",
		Long:  "Delete deletes a configuration that does not run, with its history. It asks before it does.",
		Args:  wants(cobra.ExactArgs(1)),
	}, func(c *call, args []string) error {
		if err := c.confirm(fmt.Sprintf("delete %s and its history", human.Printable(args[0])), yes); err != nil {
			return err
		}
		return c.show(client.Request{Method: http.MethodDelete, Path: configsPath + "/" + args[0]}, nil, func() { c.printf("%s: deleted\n", human.Printable(args[0])) })
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.ValidArgsFunction = completeConfigs
	return c
}

func newConfigStop(p Program) *cobra.Command {
	var yes bool
	c := remoteCommand(p, &cobra.Command{
		Use:   "stop",
		Short: "run no frontend until a configuration is selected",
		Long:  "Stop has the process run no frontend, until a configuration is selected, reloaded, or the process starts again.",
		Args:  noArgs,
	}, func(c *call, _ []string) error {
		if err := c.confirm("stop all frontends", yes); err != nil {
			return err
		}
		var r client.Report
		return c.show(client.Request{Method: http.MethodPost, Path: configsPath + "/stop"}, &r, func() { c.printReport(&r) })
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// maxConfig is what the admin takes.
const maxConfig = 1 << 20

// readFile returns a file, or standard input.
func readFile(path string, in io.Reader) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, exitError{err, exitRefused}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	switch {
	case err != nil:
		return nil, exitError{err, exitRefused}
	case len(text) == 0 || len(text) > maxConfig:
		return nil, exitError{fmt.Errorf("%s: has %d bytes or more; want 1 to %d", path, len(text), maxConfig), exitRefused}
	}
	return text, nil
}

// quoted returns an ETag as headers have it.
func quoted(tag string) string { return `"` + strings.Trim(tag, `"`) + `"` }
