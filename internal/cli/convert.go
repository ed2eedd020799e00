package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"awe4lb/internal/convert"
	"awe4lb/tlsbridge/certs"

	"github.com/spf13/cobra"
)

func newConvert() *cobra.Command {
	var from, out string
	var force, strict, env bool
	c := &cobra.Command{
		Use:   "convert FILE",
		Short: "make an awe4lb.toml of another balancer's configuration",
		Long: `Convert reads the configuration of gobetween, as TOML or JSON, or the JSON of the original awe4lb, and writes an awe4lb.toml
with the same meaning to standard output, or to the file of --output. FILE may be -, standard input.

Not everything has an equal. What has none, and what means something else here, is told on standard error, one line each with
file, line and key, and stands as a comment at its place in the result:

  gobetween.toml:14: servers.web.client_idle_timeout: changed: a session ends when neither side has said anything for …
  gobetween.toml:31: api.cors: not carried over: true: pages of other origins may not use the admin

The result always passes 'awe4lb check', but for files that are not on this host: a value that awe4lb refuses is commented out,
with the reason. Read the comments, then the page docs/migrating.md, then try it on another port beside what runs now.

Exit codes
  0  written; there may be lines on standard error that want to be read
  1  FILE cannot be read or is no such configuration, the result cannot be written, or with --strict there is such a line
  2  bad usage
With 1 and 2 nothing is written.`,
		Example: `  awe4lb convert /etc/gobetween.toml
  awe4lb convert /etc/gobetween.toml --output awe4lb.toml && awe4lb check
  awe4lb convert --from original configs/edge-00.json >awe4lb.toml 2>to-do.txt
  curl -s 'http://127.0.0.1:8888/dump?format=toml' | awe4lb convert -`,
		Args: wants(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			known := []convert.Format{convert.Auto, convert.Gobetween, convert.Original}
			if !slices.Contains(known, convert.Format(from)) {
				return fmt.Errorf("--from: got %q; want auto, gobetween or original", from)
			}
			name, text, err := readSource(args[0], c.InOrStdin())
			if err != nil {
				return exitError{err, exitConfig}
			}
			r, err := convert.Convert(name, text, convert.Options{From: convert.Format(from), Env: env})
			if err != nil {
				return exitError{err, exitConfig}
			}
			lost := 0
			for _, n := range r.Notes {
				fmt.Fprintf(c.ErrOrStderr(), "%s:%s\n", name, n)
				if n.Lost {
					lost++
				}
			}
			if n := len(r.Notes); strict && n > 0 {
				return exitError{fmt.Errorf("nothing is written: %s, and --strict", Plural(n, "line")), exitConfig}
			}
			if err := writeResult(out, r.TOML, force, c.OutOrStdout()); err != nil {
				return exitError{err, exitConfig}
			}
			fmt.Fprintf(c.ErrOrStderr(), "awe4lb: converted from %s: %s not carried over, %s\n", describe(r.From), Plural(lost, "thing"), changed(len(r.Notes)-lost))
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", string(convert.Auto), "whose configuration it is: auto, gobetween or original")
	c.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write; default: standard output")
	c.Flags().BoolVar(&force, "force", false, "replace the file if it is there")
	c.Flags().BoolVar(&strict, "strict", false, "write nothing unless everything is carried over as it is")
	c.Flags().BoolVar(&env, "env", false, "${NAME} in FILE is a variable of the environment, as for gobetween -e")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"auto", "gobetween", "original"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("output", "toml")
	return c
}

func describe(f convert.Format) string {
	if f == convert.Original {
		return "the original awe4lb"
	}
	return "gobetween"
}

func changed(n int) string {
	if n == 1 {
		return "1 means something else"
	}
	return fmt.Sprintf("%d mean something else", n)
}

// readSource returns a file, or standard input, with the name that messages have for it.
func readSource(path string, in io.Reader) (name string, text []byte, err error) {
	const most = 4<<20 + 1 // one more than convert takes: it says so
	name = filepath.Base(path)
	if path == "-" {
		name = "stdin"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		in = f
	}
	text, err = io.ReadAll(io.LimitReader(in, most))
	return name, text, err
}

// writeResult writes text to a file, whole or not at all, or to out when there is none.
func writeResult(path string, text []byte, force bool, out io.Writer) error {
	if path == "" {
		_, err := out.Write(text)
		return err
	}
	err := certs.WriteFile(path, text, force) // for its owner alone: there may be secrets in it
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: --force replaces it", path)
	}
	return err
}
