package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// askSecrets asks one question after the other on a terminal and returns the lines that were typed, of which the terminal shows
// nothing: it is told so before the first question, for who is faster than we are. Whatever happens, it is as before afterwards:
// in raw mode, Ctrl-C and Ctrl-D are an answer too, and an error.
func askSecrets(in *os.File, out io.Writer, questions ...string) (said []string, err error) {
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), was)) }()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "")
	for _, question := range questions {
		text, err := t.ReadPassword(question)
		if errors.Is(err, io.EOF) {
			fmt.Fprint(out, "\r\n")
			return nil, errors.New("no password was typed")
		}
		if err != nil {
			return nil, err
		}
		said = append(said, text)
	}
	return said, nil
}
